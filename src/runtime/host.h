// The driver of a detached actor's session: the program of who created it, started by the node
// (node/hosts.h), which becomes this at its Session.
//
// It joins the node as any driver, creates the actor and opens a door: a socket in its session's
// folder. Who comes there is a proxy (proxy.h) of another session; what it sends are calls, and
// each is made here as by a caller of this session, one thread for each proxy, so that the order of
// calls is kept. Another thread writes the answers, since a proxy that does not read must hold up
// nobody else. When the actor is dead for good, all are told, and the session ends.
//
// What comes through the door is trusted as far as this user's own processes are: it is checked to
// be well-formed, and who sends something else is sent away.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <string>

#include "mobula/options.h"
#include "runtime/carried.h"
#include "runtime/process.h"

namespace mobula::runtime {

class Host {
 public:
  // The order that this process was started with; nullptr: it was started as no host.
  static std::unique_ptr<Host> if_asked();

  Config config(Config program) const;  // how it joins the node
  [[noreturn]] void serve(Process& process, const std::string& session_folder);
  [[noreturn]] void fail(const std::exception& why);  // tells it to the creator

 private:
  explicit Host(int line) : line_(line) {}
  bool take_order();
  [[noreturn]] void serve_or_throw(Process& process, const std::string& session_folder);
  detail::ActorAddress create();

  int line_;
  std::uint64_t number_ = 0;
  std::uint64_t object_memory_ = 0;
  std::string node_folder_;
  CarriedActor order_;
  wire::ParcelBytes bytes_;
  CarriedParts parts_;
};

}  // namespace mobula::runtime
