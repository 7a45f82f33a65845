// A task that was pushed does not lie there while a worker sleeps, whoever dies at which step, and
// although stores may be late.
//
// The submitter pushes TASKS (two); the first ends only after the second has run, so somebody else
// must be woken for that. Workers search, announce their sleep, look a last time and sleep. The
// submitter and one worker may be killed. The submitter's push and a searcher's end stay in store
// buffers of one slot, as on x86 (total store order), until a fence, a read-modify-write, the
// next store or chance lets them out. Quick tasks, for which nobody is woken on purpose, are not
// modelled: the daemon looks after those.
#ifndef TASKS
#define TASKS 2
#endif
#include "common.pml"

#define kMortalWorker 0  // process numbers are class slots, too
#define kWorker 1
#define kSubmitter 2
#define kDaemon 3
#define NOBODY 0         // SchedulingClass::searcher: process + 1

byte head, tail;         // of the ring; claim.pml has the claim itself
byte sleepers;           // SchedulingClass::sleepers, a bit for each worker
byte searcher;
byte bell[2];            // Process::bell
bool asleep[2];
bool done[3];            // tasks

// The store buffers
byte late_head;          // 0: empty, else what the submitter stored into `head`
bool late_stop[2];       // a worker's store searcher = 0
bool late_bit[2];        // used by a mutation only

#define FLUSH_SUBMITTER if :: late_head != 0 -> head = late_head; late_head = 0 :: else fi
#define FLUSH_WORKER(me) \
  if :: late_stop[me] -> searcher = NOBODY; late_stop[me] = false :: else fi; \
  if :: late_bit[me] -> sleepers = sleepers | (1 << me); late_bit[me] = false :: else fi

active proctype Store_buffers() {
  do
  :: d_step { late_head != 0 -> head = late_head; late_head = 0 }
  :: d_step { late_stop[0] -> searcher = NOBODY; late_stop[0] = false }
  :: d_step { late_stop[1] -> searcher = NOBODY; late_stop[1] = false }
  :: d_step { late_bit[0] -> sleepers = sleepers | 1; late_bit[0] = false }
  :: d_step { late_bit[1] -> sleepers = sleepers | 2; late_bit[1] = false }
  od
}

// Rings a process's bell: value + 1, futex_wake.
inline ring_bell(p) {
  bell[p]++;
  d_step { asleep[p] = false; printf("worker %d is woken\n", p) }
}

// doorbell::wake_one
inline wake_one() {
  seen = sleepers;
  do
  :: atomic { seen == 0 -> break }
  :: atomic {
       seen != 0 ->
       if
       :: seen & 1 -> chosen = 0
       :: else -> chosen = 1
       fi
     };
     atomic {
       mine = ((sleepers & (1 << chosen)) != 0);
       sleepers = sleepers & ~(1 << chosen);
       seen = sleepers
     };
     if
     :: mine -> ring_bell(chosen); break
     :: !mine
     fi
  od;
  seen = 0; chosen = 0; mine = false
}

// Ledger::push and doorbell::ring
inline push() {
  d_step {
    FLUSH_SUBMITTER;
    pushed++;
    late_head = pushed;
    printf("task %d is pushed\n", pushed)
  };
#ifndef BUG_NO_FENCE_AFTER_THE_PUSH
  d_step { FLUSH_SUBMITTER };
#endif
  if
  :: searcher == NOBODY -> wake_one()
  :: else
  fi
}

active proctype Submitter() {
  byte pushed, seen, chosen; bool mine;
  {
    push();
    if
    :: TASKS == 2 -> push()
    :: else
    fi
  } unless { killed[kSubmitter] }
}

// WorkerLoop::run_one of the task that was claimed. Claiming is a read-modify-write.
inline run_ready(me) {
  d_step {
    found = 0;
    FLUSH_WORKER(me);
    if
    :: tail < head -> tail++; found = tail; printf("worker %d has task %d\n", me, found)
    :: else
    fi
  };
  if
  :: found != 0 ->
#ifndef BUG_WAKES_NOBODY_FOR_THE_REST
     if
     :: tail < head ->
        if
        :: searcher == NOBODY -> wake_one()
        :: else
        fi
     :: else
     fi;
#endif
     if
     :: found == 1 ->  // with nobody else, the daemon would start a worker
        (done[2] || TASKS == 1 || killed[kSubmitter] || killed[kMortalWorker])
     :: found != 1
     fi;
     done[found] = true
  :: found == 0
  fi
}

// WorkerLoop::work_for
inline work(me) {
  do
  :: run_ready(me);
     if
     :: found != 0
     :: found == 0 ->
        d_step {                           // become_searcher
          FLUSH_WORKER(me);
          if
          :: searcher == NOBODY -> searcher = me + 1; found = 9
          :: else
          fi
        };
        if
        :: found == 9 ->
           if
           :: tail < head                  // it looks for a while
           :: skip
           fi;
#ifndef BUG_SEARCHES_WHILE_IT_SLEEPS
           d_step { FLUSH_WORKER(me); late_stop[me] = true };  // stop_searching
#endif
           if
           :: tail < head -> found = 8
           :: else -> found = 0
           fi
        :: found == 0
        fi;
        if
        :: found == 8                      // it found some
        :: found != 8 ->
#ifdef BUG_LOOKS_BEFORE_IT_ANNOUNCES
           stay = (tail < head);
#endif
#ifndef BUG_BELL_READ_AFTER_THE_LOOK
           rung = bell[me];
#endif
#ifdef BUG_ANNOUNCES_BY_STORE
           d_step { FLUSH_WORKER(me); late_bit[me] = true };
#else
           d_step { FLUSH_WORKER(me); sleepers = sleepers | (1 << me) };  // announce_sleep
#endif
#ifndef BUG_LOOKS_BEFORE_IT_ANNOUNCES
           stay = (tail < head);
#endif
#ifdef BUG_BELL_READ_AFTER_THE_LOOK
           rung = bell[me];
#endif
           if
           :: !stay ->
              d_step { if :: bell[me] == rung -> asleep[me] = true :: else fi };
              !asleep[me]
           :: stay
           fi;
           d_step {                        // withdraw_sleep
             FLUSH_WORKER(me);
             sleepers = sleepers & ~(1 << me);
             rung = 0; stay = false
           }
        fi
     fi;
     found = 0
  od
}

active proctype Mortal_worker() {
  byte found, rung, seen, chosen; bool mine, stay;
  { work(kMortalWorker) } unless { killed[kMortalWorker] }
}

active proctype Worker() {
  byte found, rung, seen, chosen; bool mine, stay;
  work(kWorker)
}

// Node::worker_exited and Recovery. Stores of the dead have left its buffer.
active proctype Daemon() {
  bool repaired_submitter, repaired_worker;
  do
  :: killed[kSubmitter] && !repaired_submitter && late_head == 0 ->
#ifndef BUG_WAKES_NOT_EVERYBODY
     ring_bell(0);
     ring_bell(1);
#endif
     repaired_submitter = true
  :: killed[kMortalWorker] && !repaired_worker && !late_stop[0] && !late_bit[0] ->
     sleepers = sleepers & ~1;
#ifndef BUG_A_DEAD_SEARCHER_STAYS
     d_step { if :: searcher == kMortalWorker + 1 -> searcher = NOBODY :: else fi };
#endif
#ifndef BUG_WAKES_NOT_EVERYBODY
     ring_bell(1);  // Recovery::wake_everybody
#endif
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
  timeout ->
  d_step {
    assert(tail == head);  // no task lies there while everybody sleeps
    assert(killed[kSubmitter] || head == TASKS)  // the submitter ends
  }
}
