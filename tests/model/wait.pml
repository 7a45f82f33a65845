// Nobody who waits for a record sleeps for ever, whichever completer dies between which two steps.
//
// Two records become Ready while they are waited for. Two workers run them, one of which may be
// killed; the daemon repairs it. Somebody waits for record 1 by its
// state word (wait_final), or for both in any order by a bell (wait_refs), that of the ledger or
// that of the node; with -DBOTH each of them does.
#include "common.pml"

#define kMortalWorker 1
#define kWorker 2
#define kDaemon 3
#define NODE 0    // ControlHeader::any_bell
#define LEDGER 1  // Participant::completions of the owner

short word[3] = Waiting;  // Record::state
byte executing[4];  // Participant::executing[0]
byte bell[2];
bool asleep;        // wait_final's getter, on the low half of word[1]
bool asleep_on[2];  // wait_refs' getter, on a bell
bool gets, gets_both;
bool got, got_both;

// futex_wait: sleeps only if the word still has the expected value.
inline futex_wait(sleeping, place, expected) {
  d_step {
    if
#ifdef BUG_SLEEPS_UNSEEN
    :: true -> sleeping = true
#else
    :: place == expected -> sleeping = true
    :: else
#endif
    fi
  };
  !sleeping
}

inline ring(b) {
#ifdef BUG_WAKES_BEFORE_IT_RINGS
  asleep_on[b] = false;
  bell[b]++
#else
  bell[b]++;
  d_step { asleep_on[b] = false; printf("bell %d is rung\n", b) }
#endif
}

// claim::complete
inline complete(me, r, state) {
#ifdef BUG_COMPLETES_BY_STORE
  seen = word[r];
  word[r] = seen + (state - Claimed);
#else
  d_step { seen = word[r]; word[r] = seen + (state - Claimed) };
#endif
  printf("%d completes %d\n", me, r);
  if
  :: seen & kWaiters -> atomic { if :: r == 1 -> asleep = false; printf("getter woken\n") :: else fi }
  :: !(seen & kWaiters)
  fi;
  if
  :: seen & kAnyWaiter -> ring(NODE); ring(LEDGER)
  :: !(seen & kAnyWaiter)
  fi
}

// Takes and runs whatever is Ready; claim.pml has the steps. The intent stands until all are woken.
inline work(me) {
  do
  :: atomic {
       if
       :: STATE(word[1]) == Ready -> r = 1
       :: STATE(word[2]) == Ready -> r = 2
       fi;
       executing[me] = r;
       word[r] = WITH_CLAIMER(WITH_STATE(word[r], Claimed), me);
       printf("%d claims %d\n", me, r)
     };
     complete(me, r, Done);
     atomic { executing[me] = 0; r = 0; seen = 0 }
  od
}

active proctype Mortal_worker() {
  short seen; byte r;
  { work(kMortalWorker) } unless { killed[kMortalWorker] }
}

active proctype Worker() {
  short seen; byte r;
  work(kWorker)
}

// dependents::satisfy makes them Ready, each by compare-and-swap.
proctype Walker() {
  word[1] = WITH_STATE(word[1], Ready);
  if
  :: gets_both -> word[2] = WITH_STATE(word[2], Ready)
  :: else
  fi
}

// announce in get.cc. True in `open`: the bit is set, and `low` is what to sleep on.
inline announce(r, bits) {
#ifdef BUG_ANNOUNCES_BY_STORE
  seen = word[r];
  if
  :: !FINAL(seen) -> word[r] = seen | bits; low = LOW(seen | bits); open = true
  :: FINAL(seen) -> open = false
  fi
#else
  d_step {  // a loop as claim::take: it changes nothing until its swap succeeds
    open = !FINAL(word[r]);
    if
    :: open -> word[r] = word[r] | bits; low = LOW(word[r])
    :: else
    fi
  }
#endif
}

proctype Getter() {
  short seen, low; bool open;
  do
  :: announce(1, kWaiters);
     if
     :: open -> futex_wait(asleep, LOW(word[1]), low)
     :: !open -> break
     fi;
     if
     :: FINAL(word[1]) -> break
     :: else -> seen = 0; low = 0
     fi
  od;
  got = true
}

proctype Any_getter() {
  short seen, low; byte b, rung; bool open, first, second;
  if
  :: b = NODE
  :: b = LEDGER
  fi;
  do
  ::
#ifndef BUG_BELL_READ_AFTER_THE_LOOK
     rung = bell[b];
#endif
#ifdef BUG_LOOKS_BEFORE_IT_ANNOUNCES
     first = FINAL(word[1]);
     second = FINAL(word[2]);
#endif
     if
     :: !first -> announce(1, kAnyWaiter)
     :: first
     fi;
     if
     :: !second -> announce(2, kAnyWaiter)
     :: second
     fi;
#ifndef BUG_LOOKS_BEFORE_IT_ANNOUNCES
     first = FINAL(word[1]);
     second = FINAL(word[2]);
#endif
     if
     :: first && second -> break
     :: else
     fi;
#ifdef BUG_BELL_READ_AFTER_THE_LOOK
     rung = bell[b];
#endif
     futex_wait(asleep_on[b], bell[b], rung);
     atomic { seen = 0; low = 0; open = false; rung = 0 }
  od;
  got_both = true
}

active proctype Daemon() {
  short seen; byte r;
  killed[kMortalWorker];
  r = executing[kMortalWorker];
  if
  :: r == 0
  :: else ->  // Recovery::repair_claim
     seen = word[r];
     if
     :: FINAL(seen) && CLAIMER(seen) == kMortalWorker ->
#ifndef BUG_REPAIR_WAKES_NO_GETTER
        if
        :: r == 1 -> asleep = false
        :: r == 2
        fi
#endif
        skip
     :: STATE(seen) == Claimed && CLAIMER(seen) == kMortalWorker ->
#ifdef BUG_REPAIR_DROPS_THE_BITS
        word[r] = MAKE(GENERATION(seen), Ready)
#else
        d_step {
          if
          :: ATTEMPT(word[r]) == 0 -> word[r] = WITH_NEXT_ATTEMPT(WITH_STATE(word[r], Ready))
          :: else
          fi
        }
#endif
     :: else
     fi
  fi;
#ifndef BUG_REPAIR_WAKES_NOT_EVERYBODY
  ring(NODE);
  ring(LEDGER)  // Recovery::wake_everybody
#endif
  skip
}

active proctype Reaper() {
  do
  :: KILL(kMortalWorker)
  :: break
  od
}

init {
  atomic {
#ifdef BOTH
    gets = true;
    gets_both = true;
#else
    if
    :: gets = true
    :: gets_both = true
    fi;
#endif
    if
    :: gets -> run Getter()
    :: else
    fi;
    if
    :: gets_both -> run Any_getter()
    :: else
    fi;
    run Walker()
  }
}

active proctype Quiet() {
  timeout ->
  d_step {
    assert(FINAL(word[1]) && (FINAL(word[2]) || !gets_both));  // what was claimed is completed
    assert(got || !gets);  // get wakes up
    assert(got_both || !gets_both)  // wait wakes up
  }
}
