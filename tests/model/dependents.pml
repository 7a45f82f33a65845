// What waits becomes Ready exactly when its last argument is there, whoever dies at which step, and
// a walker never follows an edge into a slot that has been used again.
//
// A submitter hangs X on target 1, Y on both targets; X runs, is recycled, and its slot is used
// again for a record that hangs on target 2. Two completers make the targets final and walk their
// lists. The submitter and one completer may be killed; the daemon finishes their work.
#include "common.pml"

#define kSubmitter 1
#define kMortalCompleter 2
#define kCompleter 3
#define kDaemon 4

#define kX 1  // dependents' slots; an edge's link is slot * 2 + its number
#define kY 2
#define LINK(slot, edge) ((slot) * 2 + (edge))
#define SLOT(link) ((link) / 2)
#define EDGE(link) ((link) & 1)

#define kClosed 64     // the list's closing bit
#define kSubmission 4  // the join word's; bits 0 and 1 are the edges
#define JOIN(generation, bits) ((generation) * 8 + (bits))
#define JOIN_GENERATION(join) ((join) / 8)
#define JOIN_BITS(join) ((join) & 7)

short target[3] = Ready;  // state words of the targets
byte list[3];         // their Record::dependents
short word[3];            // state words of X and Y
byte join[3];         // their Record::join
byte next[6];         // Dependency::next of each edge
byte executing[5];    // the target that a completer has claimed
byte noted[5], noted_next[5], noted_generation[5];  // its WalkNote; 0: of no record

// Ghosts
byte readied[9];  // slot * 3 + generation: how often that became Ready
bool hinted[9];   // it lies in a ring
bool submitted;
byte hung[3];     // slot: the generation whose edges may be in a list

// dependents::satisfy. `repair` as there; one step is the loop that clears the bit.
inline satisfy(slot, generation, mask, repair) {
  d_step {
    cleared = false;
    last = false;
    if
    :: JOIN_GENERATION(join[slot]) == generation ->
       if
       :: join[slot] & mask -> join[slot] = join[slot] - mask; cleared = true
       :: else
       fi;
       last = (JOIN_BITS(join[slot]) == 0) && (cleared || repair)
    :: else
    fi
  };
  if
  :: last ->
     d_step {
       if
       :: STATE(word[slot]) == Waiting && GENERATION(word[slot]) == generation ->
          word[slot] = WITH_STATE(word[slot], Ready);
          readied[slot * 3 + generation]++;
          assert(readied[slot * 3 + generation] == 1);  // it becomes Ready once
          printf("%d.%d is Ready\n", slot, generation)
       :: else -> last = (repair && STATE(word[slot]) == Ready && GENERATION(word[slot]) == generation)
       fi
     };
     if
     :: last -> hinted[slot * 3 + generation] = true  // ReadySink::publish
     :: !last
     fi
  :: !last
  fi
}

// dependents::hang. `hangs`: false means that there is nothing to wait for.
inline hang(t, slot, edge) {
  d_step {  // the flag
    hangs = true;
    if
    :: FINAL(target[t]) && !(target[t] & kHasDependents) -> hangs = false
#ifndef BUG_HANGS_WITHOUT_THE_FLAG
    :: !FINAL(target[t]) -> target[t] = target[t] | kHasDependents
#endif
    :: else
    fi
  };
  if
  :: hangs ->
     seen = list[t];
     do
     :: atomic {
#ifdef BUG_HANGS_ON_A_CLOSED_LIST
          false ->
#else
          (seen & kClosed) ->
#endif
          hangs = false; break
        }
     :: atomic {
#ifndef BUG_HANGS_ON_A_CLOSED_LIST
          !(seen & kClosed) ->
#endif
          next[LINK(slot, edge)] = seen & 63
        };
        atomic {
          cas(list[t], seen, LINK(slot, edge) | (seen & kClosed));
          if
          :: swapped -> printf("%d.%d hangs on %d\n", slot, GENERATION(word[slot]), t); break
          :: !swapped
          fi
        }
     od
  :: !hangs
  fi
}

// One step: a note counts only when `walk_which` turns to it.
inline note(me, t) {
  d_step { noted[me] = t * 8 + link; noted_next[me] = after; noted_generation[me] = generation }
}

// dependents::follow and finish
inline follow(me, t, from) {
  link = from;
  do
  :: link == 0 -> break
  :: link != 0 ->
     atomic {
       assert(hung[SLOT(link)] != 0);  // an edge in a list is not recycled
       generation = JOIN_GENERATION(join[SLOT(link)])
     };
     after = next[link];
#ifndef BUG_NOTES_AFTER_IT_SATISFIES
     note(me, t);
#endif
     satisfy(SLOT(link), generation, (1 << EDGE(link)), false);
#ifdef BUG_NOTES_AFTER_IT_SATISFIES
     note(me, t);
#endif
#ifdef BUG_NEXT_READ_LATE
     after = next[link];
#endif
     atomic { link = after; after = 0 }
  od;
  target[t] = target[t] & ~kHasDependents;
  generation = 0
}

inline walk(me, t) {
#ifdef BUG_WALKS_BEFORE_IT_CLOSES
  link = list[t] & 63;
  list[t] = list[t] | kClosed;
#else
  d_step { link = list[t] & 63; list[t] = list[t] | kClosed };
#endif
  follow(me, t, link)
}

// claim::complete: the addition, then the walk.
inline complete(me, t) {
  d_step {
    walks = (target[t] & kHasDependents) != 0;
    target[t] = target[t] + (Done - Claimed);
    printf("%d completes target %d\n", me, t)
  };
  if
  :: walks -> walk(me, t)
  :: !walks
  fi;
  atomic { executing[me] = 0; walks = false }
}

inline work(me) {
  do
  :: atomic {
       if
       :: STATE(target[1]) == Ready -> t = 1
#ifdef ALL_WAYS
       :: STATE(target[2]) == Ready -> t = 2
#else
       :: STATE(target[2]) == Ready && me != kMortalCompleter -> t = 2
#endif
       fi;
       target[t] = WITH_CLAIMER(WITH_STATE(target[t], Claimed), me);
       executing[me] = t
     };
     complete(me, t)
  od
}

active proctype Mortal_completer() {
  byte t, link, after, generation; bool walks, cleared, last;
  { work(kMortalCompleter) } unless { killed[kMortalCompleter] }
}

active proctype Completer() {
  byte t, link, after, generation; bool walks, cleared, last;
  work(kCompleter)
}

// Dependencies::hang_edges and submit: slot hangs on target 2, and on target 1 if `both`.
inline submit(slot, generation, first, second) {
  d_step {
    hung[slot] = generation;
    join[slot] = JOIN(generation, kSubmission + first + 2 * second)
  };
  word[slot] = MAKE(generation, Waiting);
  if
  :: first ->
     hang(1, slot, 0);
     if
     :: !hangs -> satisfy(slot, generation, 1, false)
     :: hangs
     fi
  :: !first
  fi;
  if
  :: second ->
     hang(2, slot, 1);
     if
     :: !hangs -> satisfy(slot, generation, 2, false)
     :: hangs
     fi
  :: !second
  fi;
#ifndef BUG_NO_SUBMISSION_BIT
  satisfy(slot, generation, kSubmission, false)
#endif
}

// Ledger::recyclable, of the dependent itself
#define RECYCLABLE(slot) (FINAL(word[slot]) && JOIN_BITS(join[slot]) == 0)

active proctype Submitter() {
  byte seen; bool hangs, swapped, cleared, last;
  {
    submit(kY, 1, 1, 1);
    submit(kX, 1, 1, 0);
    d_step { RECYCLABLE(kX) -> word[kX] = MAKE(1, Free); hung[kX] = 0; next[2] = 0; next[3] = 0 };
    submit(kX, 2, 0, 1);
    submitted = true
  } unless { killed[kSubmitter] }
}

// A worker: takes what lies in a ring and is Ready; claim.pml has the steps.
active proctype Runner() {
  byte slot, generation;
  do
  :: d_step { STATE(word[kX]) == Ready && hinted[kX * 3 + GENERATION(word[kX])] ->
              word[kX] = WITH_STATE(word[kX], Done) }
  :: d_step { STATE(word[kY]) == Ready && hinted[kY * 3 + GENERATION(word[kY])] ->
              word[kY] = WITH_STATE(word[kY], Done) }
  od
}

// Recovery::republish_ready of one record
inline republish(slot) {
  if
  :: STATE(word[slot]) == Ready -> hinted[slot * 3 + GENERATION(word[slot])] = true
  :: STATE(word[slot]) == Waiting ->
     if
     :: join[slot] & kSubmission ->  // abandon
        d_step {
          if
          :: STATE(word[slot]) == Waiting || STATE(word[slot]) == Ready ->
             word[slot] = WITH_STATE(word[slot], Failed); printf("%d is abandoned\n", slot)
          :: else
          fi
        }
     :: JOIN_BITS(join[slot]) == 0 ->
        generation = GENERATION(word[slot]);
        satisfy(slot, generation, kSubmission, true)
     :: else
     fi
  :: else
  fi
}

#define WALKED(t) (FINAL(target[t]) && !(target[t] & kHasDependents))
// Recovery::settled: an open edge may hang in its target's list until that was walked.
#ifdef BUG_FREES_WITH_OPEN_EDGES
#define SETTLED(slot) (STATE(word[slot]) == Free || FINAL(word[slot]))
#else
#define SETTLED(slot) (STATE(word[slot]) == Free || (FINAL(word[slot]) && \
  (!(join[slot] & 1) || WALKED(1)) && (!(join[slot] & 2) || WALKED(2))))
#endif

active proctype Daemon() {
  byte t, link, after, generation; bool walks, cleared, last;
  bool repaired_submitter, repaired_completer, freed;
  do
  :: killed[kMortalCompleter] && !repaired_completer ->
     t = executing[kMortalCompleter];
     if
     :: t == 0
     :: t != 0 && FINAL(target[t]) ->  // repair_claim
        if
        :: target[t] & kHasDependents ->  // resume_walk
#ifdef BUG_REPAIR_DOES_NOT_WALK
           target[t] = target[t] & ~kHasDependents
#else
           if
           :: noted[kMortalCompleter] / 8 == t ->
              link = noted[kMortalCompleter] & 7;
              generation = noted_generation[kMortalCompleter];
#ifdef BUG_RESUMES_WITHOUT_REPAIR
              satisfy(SLOT(link), generation, (1 << EDGE(link)), false);
#else
              satisfy(SLOT(link), generation, (1 << EDGE(link)), true);
#endif
              link = noted_next[kMortalCompleter];
              follow(kDaemon, t, link)
           :: else -> walk(kDaemon, t)
           fi
#endif
        :: !(target[t] & kHasDependents)
        fi
     :: t != 0 && STATE(target[t]) == Claimed -> target[t] = WITH_STATE(target[t], Ready)
     fi;
     atomic { repaired_completer = true; t = 0 }
  :: killed[kSubmitter] && !repaired_submitter ->
     republish(kX);
     republish(kY);
     atomic { repaired_submitter = true; generation = 0 }
  :: repaired_submitter && !freed && SETTLED(kX) && SETTLED(kY) ->  // try_free
     word[kX] = WITH_STATE(word[kX], Free);
     hung[kX] = 0;
     word[kY] = WITH_STATE(word[kY], Free);
     hung[kY] = 0;
     freed = true
  od
}

active proctype Reaper() {
  do
#ifndef SUBMITTER_LIVES
  :: KILL(kSubmitter)
#endif
#ifndef COMPLETER_LIVES
  :: KILL(kMortalCompleter)
#endif
  :: break
  od
}

active proctype Quiet() {
  timeout ->
  d_step {
    assert(WALKED(1) && WALKED(2));  // every list is walked
    if
    :: !killed[kSubmitter] ->
       assert(submitted);  // nothing waits for ever
       assert(word[kX] == MAKE(2, Done) && word[kY] == MAKE(1, Done));  // all dependents have run
       assert(JOIN_BITS(join[kX]) == 0 && JOIN_BITS(join[kY]) == 0)  // no edge is open
    :: else -> assert(STATE(word[kX]) == Free && STATE(word[kY]) == Free)  // ledgers do not leak
    fi
  }
}
