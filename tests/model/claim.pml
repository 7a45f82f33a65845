// Ready records reach exactly one executor at a time, and none is lost, whoever dies at which step.
//
// A worker (submitter) runs a task that submits TASKS others and gets each; it may run them itself
// when it is faster (help first); two workers claim from the ring. Attempts end well or throw, and are
// repeated at most RETRIES times. The submitter and one worker may be killed.
#ifndef TASKS
#define TASKS 1
#endif
#ifndef RETRIES
#define RETRIES 1
#endif
#include "common.pml"

#define kSubmitter 1
#define kMortalWorker 2
#define kWorker 3
#define kDaemon 4
#define PARTICIPANTS 5
#define RECORDS 3  // slot 0 is no record
#define ENTRIES 10

short word[RECORDS];             // Record::state
byte result[RECORDS];            // Record::result_*: the number of the attempt that wrote it
byte entry[ENTRIES];             // all rings are one here, and no entry is used twice: ring.pml has
byte head, tail;                 //   growth and reuse. RingHeader::head, tail
byte executing[PARTICIPANTS];    // Participant::executing[0]: nobody here waits inside of a task
bit depth[PARTICIPANTS];         // Participant::depth

// Ghosts: no process of the source sees these.
byte running[RECORDS];   // who is inside of the task's function; 0: nobody
bool completed[RECORDS]; // its state has become final
bool got_all;

// ring::push: the entry, then the head. One step: before the head has passed it nobody sees it.
inline push(me, r) {
  d_step {
    assert(head < ENTRIES);  // the bound of this model, not of the source
    entry[head] = r;
    head++;
    printf("%d pushes task %d\n", me, r)
  }
}

// claim::intend: executing, then depth. One step: between them nothing is claimed yet.
inline intend(me, r) { d_step { executing[me] = r; depth[me] = 1 } }
// claim::forget. The entry itself stays, and repair_claims will look at it.
inline forget(me) { d_step { depth[me] = 0; attempt = 0; taken = false; failed = false } }

#define MINE(w, me) WITH_CLAIMER(WITH_STATE(w, Claimed), me)

// claim::take. Its loop of a load and compare-and-swaps changes nothing until one succeeds, so it
// is one step.
inline take(me, r) {
#ifdef BUG_CLAIM_BY_STORE
  atomic { taken = (STATE(word[r]) == Ready); attempt = ATTEMPT(word[r]) };
  if
  :: d_step {
       taken -> word[r] = MINE(word[r], me);
#else
  if
  :: d_step {
       STATE(word[r]) == Ready ->
       word[r] = MINE(word[r], me);
       taken = true;
       attempt = ATTEMPT(word[r]);
#endif
       assert(running[r] == 0 || killed[running[r]]);  // no two attempts run at once
       running[r] = me;
       printf("%d claims task %d, attempt %d\n", me, r, attempt)
     }
  :: else
  fi
}

// claim::complete: the addition. Waiters and dependents have models of their own.
inline complete(me, r, state) {
  d_step {
    assert(STATE(word[r]) == Claimed && CLAIMER(word[r]) == me);  // only its claimer completes it
    assert(!completed[r]);  // a task is completed once
    word[r] = word[r] + (state - Claimed);
    completed[r] = true;
    printf("%d completes task %d\n", me, r)
  }
}

// Ready for the next attempt: by run_again, or by the daemon. A loop as in `take`.
inline open_again(me, r) {
  d_step {
    word[r] = WITH_NEXT_ATTEMPT(WITH_STATE(word[r], Ready));
    printf("%d opens task %d again\n", me, r)
  }
}

// runtime::execute of a claimed record
inline execute(me, r) {
  atomic {
    if
    :: result[r] = attempt + 1; printf("%d has a result of task %d\n", me, r)
    :: failed = true; printf("task %d throws in %d\n", r, me)
    fi;
    running[r] = 0
  };
  if
  :: failed && attempt < RETRIES ->  // run_again
     open_again(me, r);
     push(me, r)
  :: else ->
#ifdef BUG_FORGET_BEFORE_COMPLETE
     d_step { depth[me] = 0; executing[me] = 0 };
#endif
     if
     :: failed -> complete(me, r, Failed)
     :: !failed -> complete(me, r, Done)
     fi
  fi;
  forget(me)
}

// A compare-and-swap; when it fails, somebody else has moved the tail for us.
inline move_tail() { d_step { if :: tail == t -> tail++ :: else fi } }

// WorkerLoop::run_ready with claim::next. Sleeping while the ring is empty is one blocking
// statement: doorbell.pml has the real one.
inline work(me) {
  do
  :: d_step { tail < head -> t = tail; r = entry[t] };
#ifdef BUG_TAIL_BEFORE_INTENT
     move_tail();
#endif
#ifndef BUG_INTENT_AFTER_CLAIM
     intend(me, r);
#endif
     take(me, r);
     move_tail();
#ifdef BUG_INTENT_AFTER_CLAIM
     intend(me, r);
#endif
     if
     :: taken -> execute(me, r)
     :: else -> forget(me)
     fi;
     d_step { r = 0; t = 0 }
  od
}

active proctype Mortal_worker() {
  byte t, r, attempt; bool taken, failed;
  { work(kMortalWorker) } unless { killed[kMortalWorker] }
}

active proctype Worker() {
  byte t, r, attempt; bool taken, failed;
  work(kWorker)
}

active proctype Submitter() {
  byte r, attempt; bool taken, failed, helps;
  {
    atomic {
      r = 1;
      if
      :: helps = true
      :: skip  // it is of another class, or too deep in its stack
      fi
    };
    do
    :: d_step { r <= TASKS -> word[r] = MAKE(1, Ready) };  // submit
       push(kSubmitter, r);
       r++
    :: d_step { r > TASKS -> r = 1 }; break
    od;
    do
    :: d_step {  // wait_final. Sleeping until the state changes: wait.pml
         r <= TASKS && FINAL(word[r]) ->
         // the value is that of the last attempt
         assert(STATE(word[r]) == Failed || result[r] == ATTEMPT(word[r]) + 1);
         r++
       }
    :: helps && r <= TASKS && STATE(word[r]) == Ready ->  // help
       intend(kSubmitter, r);
       take(kSubmitter, r);
       if
       :: taken -> execute(kSubmitter, r)
       :: else -> forget(kSubmitter)
       fi
    :: d_step { r > TASKS -> got_all = true }; break
    od
  } unless { killed[kSubmitter] }
}

// Recovery::repair_claim
inline repair_claim(dead, r) {
  atomic {
    seen = word[r];
    if
#ifdef BUG_REPAIRS_ANYBODYS_CLAIM
    :: STATE(seen) == Claimed -> claimed = true
#else
    :: STATE(seen) == Claimed && CLAIMER(seen) == dead -> claimed = true
#endif
    :: else
    fi
  };
  if
#ifndef BUG_READY_IS_NOT_PUBLISHED
  :: STATE(seen) == Ready -> push(kDaemon, r)  // run_again died before its push
#endif
#ifdef BUG_RETRIES_WITHOUT_END
  :: claimed && ATTEMPT(seen) <= RETRIES ->
#else
  :: claimed && ATTEMPT(seen) < RETRIES ->
#endif
     open_again(kDaemon, r);
     push(kDaemon, r)
  :: claimed && ATTEMPT(seen) >= RETRIES ->  // fail
     word[r] = MINE(word[r], kDaemon);
     complete(kDaemon, r, Failed)
  :: else  // final: wait.pml, dependents.pml; or somebody else's
  fi;
  d_step { seen = 0; claimed = false }
}

// Recovery::repair_claims
inline repair_claims(dead) {
  if
  :: executing[dead] != 0 -> repair_claim(dead, executing[dead])
  :: else
  fi;
  d_step { executing[dead] = 0; depth[dead] = 0; printf("the daemon has repaired %d\n", dead) }
}

// Recovery::republish_ready
inline republish_ready() {
  r = 1;
  do
  :: r <= TASKS ->
     if
     :: STATE(word[r]) == Ready -> push(kDaemon, r)
     :: else
     fi;
     r++
  :: r > TASKS -> break
  od
}

active proctype Daemon() {
  short seen; byte r; bool claimed, repaired_submitter, repaired_worker;
  do
  :: killed[kSubmitter] && !repaired_submitter ->
     repair_claims(kSubmitter);
#ifndef BUG_NO_REPUBLISH
     republish_ready();
#endif
     atomic { repaired_submitter = true; r = 0 }
  :: killed[kMortalWorker] && !repaired_worker ->
     repair_claims(kMortalWorker);
     repaired_worker = true
  od
}

active proctype Reaper() {
  do
  :: KILL(kSubmitter)
  :: KILL(kMortalWorker)
  :: break
  od
}

active proctype Quiet() {
  byte r;
  timeout ->
  d_step {
    assert(got_all || killed[kSubmitter]);  // get ends
    r = 1;
    do
    :: r <= TASKS ->
       assert(FINAL(word[r]) || (STATE(word[r]) == Free && killed[kSubmitter]));  // no task is lost
       assert(ATTEMPT(word[r]) <= RETRIES);  // attempts are bounded
       r++
    :: r > TASKS -> break
    od;
    assert(depth[kSubmitter] + depth[kMortalWorker] + depth[kWorker] == 0);  // no intent is left
  }
}
