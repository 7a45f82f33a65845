// Where the session's memory is: the object store, the records of tasks, the processes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mobula {

// All sizes in bytes. A picture of a moving thing: numbers taken one after the other.
struct MemoryReport {
  struct Store {
    std::uint64_t capacity = 0;  // Config.object_store_memory
    std::uint64_t leased = 0;  // in memory and handed out to processes, in use or kept for reuse
    std::uint64_t used = 0;  // of it, what values occupy, with rounding
    std::uint64_t warm = 0;  // free, its pages kept for the next values
    std::uint64_t spilled = 0;  // memory that was freed by moving values to disk
    std::uint64_t on_disk = 0;  // what these take there
    std::uint64_t spilled_ever = 0;  // written since the session began
    std::uint64_t restored_ever = 0;  // and read back
  };
  // Tasks, actor calls and puts, each 256 bytes from its submission until nothing needs it.
  struct Records {
    std::uint64_t capacity = 0;  // that memory is reserved for
    std::uint64_t waiting = 0;  // for arguments
    std::uint64_t ready = 0;  // to be run
    std::uint64_t running = 0;
    std::uint64_t finished = 0;  // kept by a ref, a task or an object
  };
  struct Object {
    std::string name;  // of the function that made it; "(put)"
    std::uint64_t size = 0;
    bool is_arguments = false;  // of a task, kept until its result is dropped
    bool is_item = false;  // of a stream, until it has been read; neither: a value
    bool on_disk = false;
    std::uint32_t owner_pid = 0;  // of the process that submitted the task or put the value
    std::uint64_t holders = 0;  // other processes, objects and this process's refs that keep it
  };
  // All values, all arguments, or all items that nobody has read, of one function.
  struct Origin {
    std::string name;
    bool is_arguments = false;
    bool is_item = false;
    std::uint64_t count = 0;
    std::uint64_t bytes = 0;
    std::uint64_t on_disk = 0;  // of the bytes
  };
  struct Process {
    std::uint32_t pid = 0;
    std::string role;  // "driver", "worker", "actor", "node"
    std::uint64_t private_memory = 0;  // its heap and stacks: what is resident and not shared
    std::uint64_t store_leased = 0;
    std::uint64_t records = 0;  // in use
    std::uint64_t pins = 0;  // values that it reads or writes right now
  };

  Store store;
  Records records;
  // Of what lies in the store, and of items, the small ones of which lie in their stream; the
  // greatest first.
  std::vector<Origin> origins;
  std::vector<Object> largest;  // single values and arguments; 20 at most
  std::vector<Process> processes;  // of this node; the node daemon's first

  std::string text() const;  // a table for people
};

// Looks at every record: about 10 ms per million.
MemoryReport memory_report();

}  // namespace mobula
