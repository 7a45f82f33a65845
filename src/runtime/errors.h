// How what went wrong travels: as bytes in a record's result when the user's function threw, as a
// CompactError when the runtime itself found it; and how both become the exception that get()
// throws.
#pragma once

#include <exception>
#include <string>

#include "mobula/codec.h"
#include "mobula/error.h"
#include "shm/memory.h"

namespace mobula::runtime {

// An exception as a value.
struct ErrorValue {
  std::uint32_t code = 0;  // ErrorCode
  std::string message;
  std::string type_name;     // for people
  std::string mangled_type;  // to be thrown again by rethrow_cause
  std::string task_name;
  std::string task_id;
  std::uint32_t attempt = 0;
  std::uint32_t process_id = 0;
  std::string node_id;
  std::int32_t signal = 0;
  std::int32_t exit_code = 0;
};

// What an error of ours says, without a task.
ErrorValue value_of(const Error& error);

// Describes the exception being handled; the task's fields are left for the caller.
ErrorValue describe_current_exception();

// Throws the error of a failed record, which is of `function`; `task`: its name and id.
[[noreturn]] void throw_error(const ErrorValue& error);
[[noreturn]] void throw_compact(const shm::Memory& memory, const shm::CompactError& error,
                                std::uint64_t function, const std::string& task);
[[noreturn]] void throw_node_died();

// 'actor Counter "hits" (id 9a0c41d7e2b35f080000000200001005)'; the name is that of ActorOptions
std::string describe_actor(const shm::Memory& memory, const shm::SchedulingClass& cls);
// "process 4711 of node 0f42c8a97be31d56"
std::string describe_process(const shm::Memory& memory, std::uint32_t pid);
// Why an actor is dead: "was killed by mobula::kill".
std::string describe_death(const shm::Memory& memory, const shm::DeathCause& cause, int signal,
                           int exit_code, std::uint32_t pid);
// "SIGSEGV (segmentation fault)"
std::string describe_signal(int signal);
std::string hex(std::uint64_t a);
// 32 digits: its job's id, and its own in that.
std::string actor_id(const shm::Memory& memory, const shm::SchedulingClass& actor);
std::string demangle(const char* name);  // of a type

}  // namespace mobula::runtime
