// A ring loses no entry and hands out none twice, while it grows, while entries are used again, and
// if its pusher dies at any step.
//
// One pusher pushes PUSHES records into a ring whose first stage has one entry; the second has two,
// the third four. Two claimers take them. Each access of src/shm/ring.h is a step.
#ifndef PUSHES
#define PUSHES 4
#endif
#include "common.pml"

#define kPusher 0
#define STAGES 3

byte head, tail, stages = 1;
byte start[STAGES], mask[STAGES];  // RingStage; the storage of a stage is its part of `storage`
byte storage[7];                   // at 0: one entry, at 1: two, at 3: four
#define STORAGE(stage, index) storage[(1 << (stage)) - 1 + ((index) & mask[stage])]
bool taken[8];                     // the record is not Ready any more: its claim was won
byte published;                    // ghost: records that are in the ring

// ring::entry: which stage an index lies in, newest first
inline stage_of(index) {
  s = stages - 1;
  do
  :: atomic { s > 0 && start[s] > index -> s-- }
  :: atomic { s == 0 || start[s] <= index -> break }
  od
}

active proctype Pusher() {
  byte r, s, from, t; bool room;
  {
    r = 1;
    do
    :: r > PUSHES -> break
    :: r <= PUSHES ->
       s = stages - 1;  // ring::has_room
       atomic {
         t = tail;
         from = (t > start[s] -> t : start[s]);
#ifdef BUG_ROOM_FOR_ONE_TOO_MANY
         room = (head - from <= mask[s] + 1)
#else
         room = (head - from < mask[s] + 1)
#endif
       };
       if
       :: room
       :: !room && s + 1 < STAGES ->  // ring::grow
          s++;
#ifdef BUG_STAGE_BEFORE_ITS_FIELDS
          stages = s + 1;
#endif
#ifdef BUG_STAGE_STARTS_AT_THE_TAIL
          start[s] = tail;
#else
          start[s] = head;
#endif
          mask[s] = (1 << s) - 1;
#ifndef BUG_STAGE_BEFORE_ITS_FIELDS
          stages = s + 1;
#endif
          room = true;
          printf("the ring has %d stages\n", s + 1)
       :: !room && s + 1 == STAGES -> tail > t  // the model's bound: it waits
       fi;
       if
       :: room ->  // ring::push
#ifdef BUG_HEAD_BEFORE_THE_ENTRY
          d_step { head++; published = r };
          STORAGE(s, head - 1) = r;
#else
          STORAGE(s, head) = r;
          d_step { head++; published = r; printf("record %d is pushed\n", r) };
#endif
          r++
       :: !room
       fi
    od
  } unless { killed[kPusher] }
}

// claim::next
active [2] proctype Claimer() {
  byte t, s, r; bool mine;
  do
  :: tail < head ->
     t = tail;
     if
     :: t >= head
     :: t < head ->
        stage_of(t);
#ifdef BUG_TAIL_MOVED_BEFORE_THE_READ
        atomic { if :: tail == t -> tail = t + 1 :: else fi };
#endif
        r = STORAGE(s, t);
        d_step {  // claim::take: exact, whatever the entry was
          mine = (r != 0 && !taken[r]);
          if
          :: mine -> taken[r] = true; printf("record %d is taken\n", r)
          :: else
          fi
        };
        d_step { if :: tail == t -> tail = t + 1 :: else fi }
     fi;
     d_step { t = 0; s = 0; r = 0; mine = false }
  od
}

active proctype Reaper() {
  do
  :: KILL(kPusher)
  :: break
  od
}

active proctype Quiet() {
  byte r;
  timeout ->
  d_step {
    assert(killed[kPusher] || published == PUSHES);  // the pusher ends
    r = 1;
    do
    :: r <= published -> assert(taken[r]); r++  // every record that was pushed is taken
    :: r > published -> break
    od;
    assert(tail == head);  // the ring is empty
  }
}
