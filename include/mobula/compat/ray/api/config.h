// RayConfig, RuntimeEnv, and the beginning and end of a session.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "object_ref.h"

// Ray's programs name boost::optional and nlohmann::json without including them.
#if __has_include(<boost/optional.hpp>)
#include <boost/optional.hpp>
#else
namespace boost {
template <class T>
using optional = std::optional<T>;
inline constexpr std::nullopt_t none = std::nullopt;
}  // namespace boost
#endif
#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
using json = nlohmann::json;
#define MOBULA_RAY_HAS_JSON 1
#endif

namespace ray {

enum class ActorLifetime { NON_DETACHED, DETACHED };

// What a task or actor finds around it. Of its fields env_vars and working_dir are understood where
// it is used; others are refused there. Without nlohmann/json.hpp on the include path it takes
// these two only.
class RuntimeEnv {
 public:
  template <typename T>
  void Set(const std::string& name, const T& value) {
    guarded("set", name, [&] { set(name, value); });
  }
  template <typename T>
  T Get(const std::string& name) const {
    if (!Contains(name)) refuse("get", name, "it is not there");
    std::optional<T> value;
    guarded("get", name, [&] { value.emplace(get<T>(name)); });
    return std::move(*value);
  }
  bool Remove(const std::string& name) { return fields_.erase(name) != 0; }

#ifdef MOBULA_RAY_HAS_JSON
  bool Contains(const std::string& name) const { return fields_.contains(name); }
  bool Empty() const { return fields_.empty(); }
  void SetJsonStr(const std::string& name, const std::string& text) {
    guarded("set", name, [&] { fields_[name] = nlohmann::json::parse(text); });
  }
  std::string GetJsonStr(const std::string& name) const {
    if (!Contains(name)) refuse("get", name, "it is not there");
    return fields_.at(name).dump();
  }
  std::string Serialize() const { return fields_.dump(); }
  static RuntimeEnv Deserialize(const std::string& text) {
    RuntimeEnv env;
    guarded("read", "runtime_env", [&] { env.fields_ = nlohmann::json::parse(text); });
    return env;
  }

 private:
  template <class T>
  void set(const std::string& name, const T& value) {
    fields_[name] = nlohmann::json(value);
  }
  template <class T>
  T get(const std::string& name) const {
    return fields_.at(name).get<T>();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, value] : fields_.items()) all.push_back(name);
    return all;
  }
  nlohmann::json fields_ = nlohmann::json::object();
#else
  bool Contains(const std::string& name) const { return fields_.count(name) != 0; }
  bool Empty() const { return fields_.empty(); }

 private:
  using Variables = std::map<std::string, std::string>;
  template <class T>
  void set(const std::string& name, const T& value) {
    if constexpr (std::is_convertible_v<const T&, std::string>) {
      fields_[name] = Variables{{"", value}};
    } else {
      fields_[name] = Variables(value.begin(), value.end());
    }
  }
  template <class T>
  T get(const std::string& name) const {
    const Variables& field = fields_.at(name);
    if constexpr (std::is_same_v<T, std::string>) {
      return field.at("");
    } else {
      return T(field.begin(), field.end());
    }
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, value] : fields_) all.push_back(name);
    return all;
  }
  std::map<std::string, Variables> fields_;
#endif

 public:
  // For the library. Throws RayRuntimeEnvException: a field that is not understood.
  mobula::RuntimeEnv understood() const {
    mobula::RuntimeEnv env;
    for (const std::string& name : names()) {
      if (name == "env_vars") {
        env.env_vars = Get<std::map<std::string, std::string>>(name);
      } else if (name == "working_dir") {
        env.working_dir = Get<std::string>(name);
      } else {
        refuse("use", name, "only env_vars and working_dir are understood");
      }
    }
    return env;
  }

 private:
  [[noreturn]] static void refuse(const char* verb, const std::string& name,
                                  const std::string& why) {
    throw internal::RayRuntimeEnvException("Failed to " + std::string(verb) + " the field " + name +
                                           ": " + why);
  }
  template <class Body>
  static void guarded(const char* verb, const std::string& name, const Body& body) {
    try {
      body();
    } catch (const std::exception& e) {
      refuse(verb, name, e.what());
    }
  }
};

class RayConfig {
 public:
  std::string address = "";  // of a node to join; empty: a private one
  bool local_mode = false;
  std::vector<std::string> code_search_path;  // libraries with RAY_REMOTE or MOBULA_EXPORT in them
  // Of those of `ray start`: --num-cpus, --num-gpus, --object-store-memory, --resources. Others
  // throw RayException.
  std::vector<std::string> head_args = {};
  // DETACHED is for actors with a name, on a node that is joined.
  ActorLifetime default_actor_lifetime = ActorLifetime::NON_DETACHED;
  boost::optional<RuntimeEnv> runtime_env;  // of all tasks and actors that have none of their own
  boost::optional<std::string> redis_username_;  // there is no Redis: not used
  boost::optional<std::string> redis_password_;
  bool is_worker_ = false;
  std::string ray_namespace = "";
};

namespace internal {

// What tasks and actors take from the job.
struct Job {
  std::string ray_namespace;
  ActorLifetime actor_lifetime = ActorLifetime::NON_DETACHED;
  bool local_mode = false;
  mobula::RuntimeEnv runtime_env;
  // Ray's handles are not counted in C++: an actor lives until it is killed or the job ends.
  std::vector<mobula::Ref<void>> actors;
};
inline Job& job() {
  static Job current;
  return current;
}
inline std::mutex& job_mutex() {
  static std::mutex mutex;
  return mutex;
}

// Environment variables of the workers, which are started while it lives: of this program they are
// none afterwards.
class WorkerEnvironment {
 public:
  explicit WorkerEnvironment(const std::map<std::string, std::string>& variables) {
    for (const auto& [name, value] : variables) {
      const char* old = std::getenv(name.c_str());
      before_[name] = old ? std::optional<std::string>(old) : std::nullopt;
      ::setenv(name.c_str(), value.c_str(), 1);
    }
  }
  ~WorkerEnvironment() {
    for (const auto& [name, value] : before_)
      value ? ::setenv(name.c_str(), value->c_str(), 1) : ::unsetenv(name.c_str());
  }
  WorkerEnvironment(const WorkerEnvironment&) = delete;
  WorkerEnvironment& operator=(const WorkerEnvironment&) = delete;

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

// {"a": 1, "b": 0.5}
inline std::map<std::string, double> parse_resources(const std::string& text) {
  std::map<std::string, double> amounts;
  std::size_t at = 0;
  const auto take = [&](char c) {
    at = std::min(text.find_first_not_of(" \t\n", at), text.size());
    if (at == text.size() || text[at] != c) return false;
    ++at;
    return true;
  };
  const auto require = [&](bool holds) {
    if (!holds) throw RayException("--resources is no JSON object of numbers: " + text);
  };
  require(take('{'));
  while (!take('}')) {
    require((amounts.empty() || take(',')) && take('"'));
    const std::size_t end = text.find('"', at);
    require(end != std::string::npos);
    double& amount = amounts[text.substr(at, end - at)];
    at = end + 1;
    require(take(':'));
    char* rest = nullptr;
    amount = std::strtod(text.c_str() + at, &rest);
    require(rest != text.c_str() + at);
    at = static_cast<std::size_t>(rest - text.c_str());
  }
  return amounts;
}

inline void apply_head_arguments(const std::vector<std::string>& arguments,
                                 mobula::Config& config) {
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    std::string value;
    if (const std::size_t equals = name.find('='); equals != std::string::npos) {
      value = name.substr(equals + 1);
      name.resize(equals);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    }
    if (name == "--num-cpus") {
      config.num_cpus = std::strtod(value.c_str(), nullptr);
    } else if (name == "--num-gpus") {
      config.num_gpus = std::strtod(value.c_str(), nullptr);
    } else if (name == "--object-store-memory") {
      config.object_store_memory = std::strtoull(value.c_str(), nullptr, 10);
    } else if (name == "--resources") {
      config.resources = parse_resources(value);
    } else {
      throw RayException("RayConfig.head_args: " + name + " is not understood");
    }
  }
}

// The value of --ray_NAME=VALUE or -ray_NAME VALUE on the command line.
inline std::optional<std::string> flag(const std::vector<std::string>& arguments,
                                       const std::string& name) {
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    std::string_view text = arguments[i];
    if (!text.starts_with("-")) continue;
    text.remove_prefix(std::min(text.find_first_not_of('-'), text.size()));
    if (text == name && i + 1 < arguments.size()) return arguments[i + 1];
    if (text.starts_with(name + "=")) return std::string(text.substr(name.size() + 1));
  }
  return std::nullopt;
}

inline std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ":") + part;
  return text;
}

}  // namespace internal

// Starts a node, or joins one. In a worker it does not return: call it early in main(). Does
// nothing in a program that is initialized.
inline void Init(const RayConfig& config, int argc, char** argv) {
  if (mobula::is_initialized()) return;
  // Workers are started with the same. What Init() is given may lack what a library of flags has
  // taken out.
  std::vector<std::string> arguments = mobula::detail::own_arguments();
  std::vector<std::string> given = arguments;
  if (argv) given.assign(argv, std::find(argv, argv + argc, nullptr));
  mobula::Config settings;
  settings.address = internal::flag(given, "ray_address").value_or(config.address);
  settings.local_mode = config.local_mode;
  settings.local_threads = true;  // as Ray's local mode
  settings.code_search_path = internal::flag(given, "ray_code_search_path")
                                  .value_or(internal::joined(config.code_search_path));
  settings.namespace_ = config.ray_namespace;
  internal::apply_head_arguments(config.head_args, settings);
  // A program may have several sessions, one after the other: a worker comes by the first Init(),
  // and learns from its environment of which job it is.
  constexpr const char* kNamespace = "MOBULA_RAY_NAMESPACE";
  constexpr const char* kDetached = "MOBULA_RAY_DETACHED";
  internal::Job& job = internal::job();
  job.runtime_env = config.runtime_env ? config.runtime_env->understood() : mobula::RuntimeEnv{};
  std::map<std::string, std::string> variables;
  std::swap(variables, job.runtime_env.env_vars);
  const bool worker = std::getenv("MOBULA_ZYGOTE_SOCKET");
  job.local_mode = config.local_mode && !worker;
  if (worker) {
    const char* of_job = std::getenv(kNamespace);
    job.ray_namespace = of_job ? of_job : "";
    job.actor_lifetime =
        std::getenv(kDetached) ? ActorLifetime::DETACHED : ActorLifetime::NON_DETACHED;
    variables.clear();  // it has them
  } else {
    job.ray_namespace = config.ray_namespace;
    job.actor_lifetime = config.default_actor_lifetime;
    variables[kNamespace] = job.ray_namespace;
    if (job.actor_lifetime == ActorLifetime::DETACHED) variables[kDetached] = "1";
  }
  const internal::WorkerEnvironment environment(variables);
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  internal::translated([&] {
    mobula::init(static_cast<int>(arguments.size()), pointers.data(), std::move(settings));
  });
}
inline void Init(const RayConfig& config) { Init(config, 0, nullptr); }
inline void Init() { Init(RayConfig{}); }

inline bool IsInitialized() { return mobula::is_initialized(); }

inline void Shutdown() {
  internal::job().actors.clear();
  mobula::shutdown();
}

inline std::string GetNamespace() { return internal::job().ray_namespace; }

}  // namespace ray
