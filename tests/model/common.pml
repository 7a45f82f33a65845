// What all models share: the state word of src/shm/record.h, compare-and-swap, kill -9.
//
// A statement is one access to shared memory; a d_step is one read-modify-write instruction, or one
// access and the ghost variables that watch it. Locals cost no step of their own.

// The state word: fewer bits than in the source, the same parts.
#define Free 0
#define Waiting 1
#define Ready 2
#define Claimed 3
#define Done 4
#define Failed 5
#define kWaiters 8
#define kAnyWaiter 16
#define kHasDependents 32
#define STATE(w) ((w) & 7)
#define ATTEMPT(w) (((w) >> 6) & 3)
#define CLAIMER(w) (((w) >> 8) & 7)
#define GENERATION(w) ((w) >> 11)
#define LOW(w) ((w) & 2047)  // what a futex compares: everything but the generation
#define FINAL(w) (STATE(w) >= Done)
#define MAKE(g, s) (((g) << 11) | (s))
#define WITH_STATE(w, s) (((w) & ~7) | (s))
#define WITH_CLAIMER(w, c) (((w) & ~1792) | ((c) << 8))
#define WITH_NEXT_ATTEMPT(w) ((w) + 64)

// compare_exchange: `swapped` tells; on failure `seen` is what was there. The weak form's failures
// for no reason only make a loop look once more.
inline cas(place, seen, desired) {
  d_step {
    if
    :: place == seen -> place = desired; swapped = true
    :: else -> seen = place; swapped = false
    fi
  }
}

// kill -9: a process written as `{ ... } unless { killed[me] }` takes no further step once its flag
// is set, and the flag may be set between any two of its steps. The flag is also what the daemon
// learns from waitpid: it repairs only after the end.
#ifndef CRASHES
#define CRASHES 1
#endif
#define PROCESSES 6
bool killed[PROCESSES];
byte crashes_left = CRASHES;

#define KILL(p) d_step { crashes_left > 0 && !killed[p] -> \
  killed[p] = true; crashes_left--; printf("kill -9 of process %d\n", p) }

// When nothing can move any more (`timeout`), all must be well: every model ends with a process
// Quiet that says what that means. Nobody's sleep has a time limit here, though those of the source
// have: what only a timeout would repair is a failure.
