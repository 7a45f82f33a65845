// What a node that stays says of itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "wire/local_protocol.h"

namespace mobula::cli {

class NodeReader {
 public:
  // Throws std::runtime_error when nobody answers.
  explicit NodeReader(std::string folder);
  ~NodeReader();
  NodeReader(const NodeReader&) = delete;
  NodeReader& operator=(const NodeReader&) = delete;

  const std::string& folder() const { return folder_; }
  std::string name() const;
  std::string id() const;  // as NodeInfo.node_id
  std::uint32_t pid() const { return pid_; }
  std::uint64_t object_memory() const { return object_memory_; }
  std::uint64_t object_memory_given() const { return object_memory_given_; }
  std::map<std::string, double> resources();
  std::map<std::string, double> free_resources();
  // Ends the node; returns when it is gone, with a line for each job that ended with it.
  std::string drain(std::uint64_t grace_ms);

 private:
  std::map<std::string, double> ask(std::uint32_t which);

  std::string folder_;
  int socket_;
  std::uint64_t id_ = 0;
  std::uint32_t pid_ = 0;
  std::uint64_t object_memory_ = 0;
  std::uint64_t object_memory_given_ = 0;
};

// "2", "0.5 of 2": what there is of each, apart from memory, for people.
std::string describe_resources(const std::map<std::string, double>& free,
                               const std::map<std::string, double>& all);

}  // namespace mobula::cli
