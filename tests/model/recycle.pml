// A record that is held is not recycled; one that nobody holds is, whoever dies at which step.
//
// An owner process has two ledgers. Thread A's has a put R; thread B's has a task T that gets R as
// argument and returns it inside of its result. Workers, one of them mortal, run T: they hold R,
// and hold it once more for the result (transfer). B decodes the result, drops all, recycles T and
// uses its slot again (generation 2), while stale ring entries still name the first. A recycles R.
// The owner process may be killed as well: both of its threads end at once. -DREUSE adds the slot's
// second use, -DALL_WAYS results without R, results given up, early releases, values never looked at.
#include "common.pml"

#define A 1
#define B 2
#define kMortalWorker 3
#define kWorker 4
#define kDaemon 5
#define kOwner A  // as a process

#define None 0  // HoldOp
#define Hold 1
#define Release 2
#define ReleaseContained 3

// Record::refs of R: count, participant, sequence
#define COUNT(refs) ((refs) >> 6)
#define AUTHOR(refs) (((refs) >> 3) & 7)
#define SEQUENCE(refs) ((refs) & 7)
#define REFS(n, author, seq) ((n) << 6 | (author) << 3 | (seq))

short r_word = MAKE(1, Done);
short refs;            // of R; T is held by nobody but its owner
byte r_private = 1;    // RefCounts of the owner's process: R's refs in it
bool r_in_limbo;       // R's last ref was dropped once: A looks at it
short t_word;
bool t_result_has_refs, t_refs_released;

byte op[6], sequence[6], noted[6];  // HoldIntent; noted: acknowledged
bit line_of[6];                     // HoldIntent::entry: line 0 is the process's own hold,
bool line[12], container[12];       //   line 1 one on its way into T's result (HoldEntry)
byte executing[6];                  // the generation of T that is executed

bool b_done;
bool dead_owner_freed;

#define ALIVE assert(r_word == MAKE(1, Done))  // who has a ref finds the record

// holds::acknowledge: notes for the author of `old` that its change was seen
inline acknowledge(me, old) {
#ifdef BUG_NO_ACKNOWLEDGEMENT
  skip
#else
  atomic {
    if
    :: AUTHOR(old) != 0 && AUTHOR(old) != me -> seen_note = noted[AUTHOR(old)]
    :: else -> seen_note = SEQUENCE(old)
    fi
  };
  do
  :: atomic { seen_note == SEQUENCE(old) -> seen_note = 0; break }
  :: atomic {
       seen_note != SEQUENCE(old) ->
       if
       :: sequence[AUTHOR(old)] != SEQUENCE(old) -> seen_note = 0; break
       :: else
       fi
     };
     d_step {
       if
       :: noted[AUTHOR(old)] == seen_note -> noted[AUTHOR(old)] = SEQUENCE(old)
       :: else
       fi;
       seen_note = noted[AUTHOR(old)]
     }
  od
#endif
}

// take_line and holds::open. One step: its fields count only when the operation stands.
inline open(me, what, l) {
  d_step {
    if
    :: what == Hold -> container[me * 2 + l] = l
    :: else
    fi;
    line_of[me] = l;
    sequence[me] = (sequence[me] + 1) & 7;
    op[me] = what
  }
}
inline close(me) { op[me] = None }

// holds::change
inline change(me, by) {
  seen = refs;
  do
  :: acknowledge(me, seen);
     atomic {
       if
       :: refs == seen ->
          assert(COUNT(seen) + by >= 0);  // nothing is released twice
          refs = REFS(COUNT(seen) + by, me, sequence[me]);
          printf("%d makes the count %d\n", me, COUNT(refs));
          seen = 0;
          break
       :: else -> seen = refs
       fi
     }
  od
}

// HoldTable::clear_line. One step: a line that names no record is skipped, whatever its container.
inline clear_line(me, l) { d_step { line[me * 2 + l] = false; container[me * 2 + l] = false } }

inline hold(me, l) {  // HoldTable::acquire; Execution::finish for line 1
  open(me, Hold, l);
  change(me, 1);
  line[me * 2 + l] = true;
  close(me)
}
inline release(me, l) {  // HoldTable::release; give_up_transfers for line 1
  open(me, Release, l);
  change(me, -1);
  clear_line(me, l);
  close(me)
}

// detail::release of a ref of the owner's process
inline drop_private() {
  d_step {
    assert(r_private > 0);  // no ref is dropped twice
    r_private--;
    if
    :: r_private == 0 -> r_in_limbo = true
    :: else
    fi
  }
}

// A's look, Ledger::recyclable, and Ledger::recycle_one. It may look at any time; at least when
// the record may go.
active proctype Thread_A() {
  short seen; byte seen_note, looks; bool may;
  {
    do
    :: d_step {
         r_in_limbo && (looks < 1 || (COUNT(refs) == 0 && r_private == 0)) ->
         if :: looks < 1 -> looks++ :: else fi
       };
#ifdef BUG_OWN_REFS_FIRST
       may = (r_private == 0);
       may = may && (COUNT(refs) == 0);
#else
#ifdef BUG_FOREIGN_HOLDS_IGNORED
       may = true;
#else
       may = (COUNT(refs) == 0);
#endif
       may = may && (r_private == 0);
#endif
       if
       :: may -> break
       :: !may
       fi
    od;
    seen = refs;
#ifndef BUG_RECYCLES_WITHOUT_A_NOTE
    acknowledge(A, seen);
#endif
    refs = 0;
    r_word = MAKE(1, Free);
    printf("R is recycled\n")
  } unless { killed[kOwner] }
}

active proctype Thread_B() {
  short seen; byte seen_note; bool decoded;
  {
    r_private++;                 // place_arguments
    t_word = MAKE(1, Ready);     // submit
    drop_private();              // its own Ref
#ifdef BUG_ARGUMENTS_RELEASED_TOO_EARLY
    drop_private();
#endif
    FINAL(t_word);
#ifndef BUG_ARGUMENTS_RELEASED_TOO_EARLY
    drop_private();              // tidy_arguments
#endif
    if
    :: t_result_has_refs ->      // get: adopt_decoded
       ALIVE;
#ifdef BUG_CONTAINED_RELEASED_FIRST
       skip
#else
       r_private++;
       decoded = true
#endif
#ifdef ALL_WAYS
    :: skip                      // nobody looks at the result
#endif
    :: !t_result_has_refs
    fi;
    if                           // recycle_one(T)
    :: t_result_has_refs ->
       open(B, ReleaseContained, 0);
       change(B, -1);
       t_refs_released = true;
       close(B)
    :: !t_result_has_refs
    fi;
    t_word = MAKE(1, Free);
#ifdef BUG_CONTAINED_RELEASED_FIRST
    if
    :: t_refs_released -> r_private++; decoded = true
    :: else
    fi;
#endif
    if
    :: decoded -> ALIVE; drop_private()
    :: !decoded
    fi;
    atomic { t_result_has_refs = false; t_refs_released = false };
#ifdef REUSE
    t_word = MAKE(2, Ready);     // the slot's next task: nothing of R
    FINAL(t_word);
    t_word = MAKE(2, Free);
#endif
    b_done = true
  } unless { killed[kOwner] }
}

// A worker has ring entries of both generations: a stale one is skipped by the compare-and-swap.
inline work(me) {
  do
  :: atomic {
       STATE(t_word) == Ready ->
#ifdef REUSE
       if
       :: executing[me] = 1
       :: executing[me] = 2
       fi;
#else
       executing[me] = 1;
#endif
       taken = false
     };
     d_step {  // claim::take
       if
#ifdef BUG_STALE_ENTRY_CLAIMS
       :: STATE(t_word) == Ready ->
#else
       :: STATE(t_word) == Ready && GENERATION(t_word) == executing[me] ->
#endif
          assert(GENERATION(t_word) == executing[me]);  // a stale address claims nothing
          t_word = WITH_CLAIMER(WITH_STATE(t_word, Claimed), me);
          taken = true
       :: else
       fi
     };
     if
     :: taken && executing[me] == 1 ->
        hold(me, 0);             // its argument: adopt_decoded
#ifndef BUG_TRANSFER_HELD_AFTER_COMPLETION
        if
        :: hold(me, 1); t_result_has_refs = true
#ifdef ALL_WAYS
        :: ALIVE                 // the function returns something else
        :: hold(me, 1); release(me, 1)  // it could not be stored
#endif
        fi;
#else
        t_result_has_refs = true;
#endif
#ifdef ALL_WAYS
        if
        :: release(me, 0)
        :: skip                  // an actor may keep it
        fi;
#endif
        t_word = t_word + (Done - Claimed);
        printf("%d completes T\n", me);
#ifdef BUG_TRANSFER_HELD_AFTER_COMPLETION
        if
        :: t_result_has_refs -> hold(me, 1)
        :: !t_result_has_refs
        fi;
#endif
        if                       // forget_transfers
        :: line[me * 2 + 1] -> clear_line(me, 1)
        :: else
        fi;
        executing[me] = 0;
        if
        :: line[me * 2] -> ALIVE; release(me, 0)
        :: !line[me * 2]
        fi
     :: taken && executing[me] == 2 ->
        t_word = t_word + (Done - Claimed);
        executing[me] = 0
     :: !taken -> executing[me] = 0
     fi;
     taken = false
  od
}

active proctype Mortal_worker() {
  short seen; byte seen_note; bool taken;
  { work(kMortalWorker) } unless { killed[kMortalWorker] }
}

active proctype Worker() {
  short seen; byte seen_note; bool taken;
  work(kWorker)
}

// Recovery::release_hold
inline release_hold() {
  open(kDaemon, Release, 0);
  change(kDaemon, -1);
  close(kDaemon)
}

// Recovery::resolve_hold
inline resolve_hold(dead) {
  if
  :: op[dead] == None
  :: op[dead] != None ->
     seen = refs;  // holds::applied
     applied = (AUTHOR(seen) == dead && SEQUENCE(seen) == sequence[dead]);
     if
     :: applied
     :: !applied -> applied = (noted[dead] == sequence[dead])
     fi;
#ifdef BUG_REPAIR_THINKS_IT_HAPPENED
     applied = true;
#endif
#ifdef BUG_REPAIR_THINKS_IT_DID_NOT
     applied = false;
#endif
     d_step {
       printf("the daemon finds that the change of %d happened: %d\n", dead, applied);
       if
       :: op[dead] == ReleaseContained -> t_refs_released = applied
       :: else ->
          line[dead * 2 + line_of[dead]] = ((op[dead] == Hold) == applied);
          if
          :: !line[dead * 2 + line_of[dead]] -> container[dead * 2 + line_of[dead]] = false
          :: else
          fi
       fi
     };
     close(dead)
  fi;
  d_step { applied = false; seen = 0 }
}

// Recovery::settle_transfers: holds on their way into T's result
inline settle_transfer(dead) {
  if
  :: line[dead * 2 + 1] && container[dead * 2 + 1] ->
     if
     :: GENERATION(t_word) != 1 || STATE(t_word) == Free || FINAL(t_word)  // the result's now
     :: else -> release_hold()
     fi;
     clear_line(dead, 1)
  :: else
  fi
}

inline repair_worker(dead) {
  resolve_hold(dead);
#ifndef BUG_CLAIMS_BEFORE_TRANSFERS
  settle_transfer(dead);
#endif
  if                             // repair_claims
  :: STATE(t_word) == Claimed && CLAIMER(t_word) == dead && GENERATION(t_word) == executing[dead] ->
     t_result_has_refs = false;
     t_word = WITH_STATE(t_word, Ready)
  :: else
  fi;
#ifdef BUG_CLAIMS_BEFORE_TRANSFERS
  if
  :: FINAL(t_word) -> settle_transfer(dead)
  :: STATE(t_word) == Ready -> settle_transfer(dead)
  fi;
#endif
  if                             // try_free: it has no records, so its own holds go
  :: line[dead * 2] -> release_hold(); line[dead * 2] = false
  :: !line[dead * 2]
  fi;
  printf("the daemon has repaired worker %d\n", dead)
}

#define T_SETTLED (STATE(t_word) == Free || FINAL(t_word))
#define T_HOLDS_R (FINAL(t_word) && t_result_has_refs && !t_refs_released)

// The dead owner's records are freed one by one, as nobody holds them any more: a result may hold
// what lies in the same ledger (Recovery::free_settled).
inline free_ledgers() {
#ifdef BUG_A_LEDGER_KEEPS_ITSELF
  T_SETTLED && COUNT(refs) == 0;  // also a hold by T's own result keeps R, and R keeps T
#else
  T_SETTLED;
#endif
  if                             // drop_contents
  :: T_HOLDS_R -> release_hold()
  :: else
  fi;
  t_word = WITH_STATE(0, Free);
  COUNT(refs) == 0;  // Recovery::settled
  if
  :: STATE(r_word) != Free ->
     seen = refs;
     acknowledge(kDaemon, seen);
     refs = 0;
     r_word = MAKE(1, Free)
  :: STATE(r_word) == Free
  fi;
  dead_owner_freed = true
}

active proctype Daemon() {
  short seen; byte seen_note; bool applied, repaired_owner, repaired_worker;
  do
  :: killed[kOwner] && !repaired_owner ->
     resolve_hold(B);
     repaired_owner = true
  :: killed[kMortalWorker] && !repaired_worker ->
     repair_worker(kMortalWorker);
     repaired_worker = true
  :: repaired_owner && !dead_owner_freed &&
     (repaired_worker || !killed[kMortalWorker]) && T_SETTLED && COUNT(refs) <= T_HOLDS_R ->
     free_ledgers()
  od
}

active proctype Reaper() {
  do
  :: KILL(kOwner)
  :: KILL(kMortalWorker)
  :: break
  od
}

active proctype Quiet() {
  timeout ->
  d_step {
    assert(b_done || killed[kOwner]);  // nothing hangs
    assert(r_word == MAKE(1, Free));  // what nobody holds is recycled
    assert(STATE(t_word) == Free && (!killed[kOwner] || dead_owner_freed));  // ledgers do not leak
    assert(COUNT(refs) == 0 && !line[6] && !line[7] && !line[8] && !line[9])  // no hold is left
  }
}
