#include "cli/node_reader.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "cli/output.h"
#include "core/resources.h"
#include "runtime/errors.h"
#include "wire/rendezvous.h"

namespace mobula::cli {

NodeReader::NodeReader(std::string folder)
    : folder_(std::move(folder)), socket_(wire::connect_in(folder_)) {
  ask(0);
}

NodeReader::~NodeReader() { ::close(socket_); }

std::string NodeReader::name() const {
  return std::filesystem::path(folder_).filename().string().substr(wire::kNodePrefix.size());
}

std::string NodeReader::id() const { return runtime::hex(id_); }

std::map<std::string, double> NodeReader::ask(std::uint32_t which) {
  wire::Message message;
  message.kind = wire::Kind::Resources;
  message.a = which;
  if (!wire::send(socket_, message) || wire::receive(socket_, message) != wire::Received::Message)
    throw std::runtime_error("the node in " + folder_ + " has ended");
  pid_ = message.b;
  object_memory_ = message.c;
  object_memory_given_ = message.d;
  const wire::Fields fields = wire::split(message.text_view());
  id_ = std::strtoull(std::string(wire::field(fields, 1)).c_str(), nullptr, 10);
  auto amounts = wire::parse_amounts(wire::field(fields, 0));
  for (auto& [name, units] : amounts) units /= core::ResourceAmounts::kUnitsPerOne;
  return amounts;
}

std::map<std::string, double> NodeReader::resources() { return ask(0); }
std::map<std::string, double> NodeReader::free_resources() { return ask(1); }

std::string NodeReader::drain(std::uint64_t grace_ms) {
  wire::Message message;
  message.kind = wire::Kind::Drain;
  message.c = grace_ms;
  if (!wire::send(socket_, message) || wire::receive(socket_, message) != wire::Received::Message)
    throw std::runtime_error("the node in " + folder_ + " ended before it had cleaned up");
  return std::string(message.text_view());
}

std::string describe_resources(const std::map<std::string, double>& free,
                               const std::map<std::string, double>& all) {
  std::string text;
  for (const auto& [name, amount] : all) {
    if (name == "memory") continue;
    const auto there = free.find(name);
    char part[80];
    std::snprintf(part, sizeof part, "%.10g of %.10g", there == free.end() ? 0 : there->second,
                  amount);
    text += (text.empty() ? "" : ", ") + name + " " + part;
  }
  return text;
}

}  // namespace mobula::cli
