// Meshes: n actors of one class as one, for programs that do the same on many parts of their data.
//
//   const auto grid = mobula::mesh<Block>(100, cells_per_block);       // 100 actors
//   mobula::MeshRef<double> sums = grid.call<&Block::step>(dt);        // one call of each
//   const double all = mobula::get(mobula::reduce<plus>(sums));        // a tree of tasks
//
// An argument goes to every member; one that is not a few plain bytes is stored once and all read
// it there. each(values) deals one value to each member instead.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "mobula/actor.h"
#include "mobula/error.h"
#include "mobula/object.h"
#include "mobula/options.h"
#include "mobula/task.h"

namespace mobula {

namespace detail {

template <class V>
std::vector<V> slice_of(const std::vector<V>& all, std::size_t begin, std::size_t end,
                        std::size_t step) {
  if (begin >= end || end > all.size() || step == 0) {
    throw Error("slice(" + std::to_string(begin) + ", " + std::to_string(end) + ", " +
                std::to_string(step) + ") of a mesh of " + std::to_string(all.size()));
  }
  std::vector<V> some;
  for (std::size_t i = begin; i < end; i += step) some.push_back(all[i]);
  return some;
}

}  // namespace detail

// The results of a call to all members, in the members' order. Can be an argument, a result or a
// field of one.
template <class R>
class MeshRef {
 public:
  MeshRef() = default;
  explicit MeshRef(std::vector<Ref<R>> refs) : refs_(std::move(refs)) {}

  std::size_t size() const noexcept { return refs_.size(); }
  const Ref<R>& operator[](std::size_t i) const noexcept { return refs_[i]; }
  const std::vector<Ref<R>>& refs() const noexcept { return refs_; }

  // Results begin, begin + step, ... before end. Throws Error when these are none.
  MeshRef slice(std::size_t begin, std::size_t end, std::size_t step = 1) const {
    return MeshRef(detail::slice_of(refs_, begin, end, step));
  }

 private:
  std::vector<Ref<R>> refs_;
};

template <class R>
struct codec<MeshRef<R>> {
  static void encode(Writer& writer, const MeshRef<R>& ref) {
    mobula::encode<std::vector<Ref<R>>>(writer, ref.refs());
  }
  static MeshRef<R> decode(Reader& reader) {
    return MeshRef<R>(mobula::decode<std::vector<Ref<R>>>(reader));
  }
};

// One result for each member, errors and a timeout (for all together; 0: only look) among them.
template <class R>
std::vector<Result<R>> try_get(const MeshRef<R>& results, std::optional<Duration> timeout = {}) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Result<R>> all;
  all.reserve(results.size());
  for (const Ref<R>& ref : results.refs()) {
    std::optional<Duration> left = timeout;
    if (timeout && *timeout > Duration::zero())
      left = std::max(Duration::zero(), *timeout - (std::chrono::steady_clock::now() - begin));
    all.push_back(try_get(ref, left));
  }
  return all;
}

// All results; nothing for methods that return nothing. The first error in the members' order is
// thrown in its own type; its what() begins with the member's number. With a timeout, for all
// together, throws GetTimeoutError.
template <class R>
auto get(const MeshRef<R>& results, std::optional<Duration> timeout = {}) {
  std::vector<Result<R>> all = try_get(results, timeout);
  std::conditional_t<std::is_void_v<R>, std::vector<std::nullptr_t>, std::vector<R>> values;
  values.reserve(all.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    try {
      if constexpr (std::is_void_v<R>) {
        all[i].value();
      } else {
        values.push_back(std::move(all[i]).value());
      }
    } catch (Error& e) {
      e.add_context("member " + std::to_string(i) + " of " + std::to_string(all.size()));
      throw;
    }
  }
  if constexpr (!std::is_void_v<R>) return values;
}

// One value for all: Op(Op(r0, r1), Op(r2, r3)) and so on, as a tree of tasks that begins with the
// first results that are there. Op: R (R, R), as for remote<Op>; it should be associative. An error
// of a member is the result's. Throws Error when there are no results.
template <auto Op, class R>
Ref<R> reduce(const MeshRef<R>& results) {
  if (results.size() == 0) throw Error("reduce: there are no results");
  std::vector<Ref<R>> level = results.refs();
  while (level.size() > 1) {
    std::size_t n = 0;
    for (std::size_t i = 0; i + 1 < level.size(); i += 2)
      level[n++] = remote<Op>(level[i], level[i + 1]);
    if (level.size() % 2) level[n++] = std::move(level.back());
    level.resize(n);
  }
  return std::move(level.front());
}

namespace detail {

template <class V>
struct Each {
  const std::vector<V>& values;
};

template <class A>
inline constexpr bool kIsEach = false;
template <class V>
inline constexpr bool kIsEach<Each<V>> = true;

// What members get for one argument: the same, or what is dealt to them.
template <class A>
struct ForAll {
  const A& argument;
  const A& of(std::size_t) const { return argument; }
};
template <class S>
struct Stored {
  Ref<S> argument;
  const Ref<S>& of(std::size_t) const { return argument; }
};
template <class V>
struct Dealt {
  const std::vector<V>& values;
  decltype(auto) of(std::size_t i) const { return values[i]; }
};

// A parameter whose value is worth storing once rather than once for each member. What does not fit
// the parameter is passed on for the message.
template <class P, class A>
consteval bool is_stored_once() {
  if constexpr (kIsRef<A> || kIsView<A> || kRefsStandFor<P, A> || !Encodable<StoredOf<P>> ||
                kIsRef<StoredOf<P>>) {
    return false;
  } else {
    constexpr std::size_t kFewBytes = 64;
    return stands_for<P, A>() && !(is_flat_v<StoredOf<P>> && sizeof(StoredOf<P>) <= kFewBytes);
  }
}

template <class P, class A>
auto deal(const A& argument, std::size_t members) {
  if constexpr (kIsEach<A>) {
    if (argument.values.size() != members) {
      throw Error("each() has " + std::to_string(argument.values.size()) + " values for " +
                  std::to_string(members) + " members");
    }
    return Dealt<typename std::remove_cvref_t<decltype(argument.values)>::value_type>{
        argument.values};
  } else if constexpr (is_stored_once<P, A>()) {
    using S = StoredOf<P>;
    if constexpr (std::is_same_v<S, A>) {
      return Stored<S>{put(argument)};
    } else if constexpr (std::is_convertible_v<const A&, S>) {
      return Stored<S>{put(static_cast<S>(argument))};
    } else {  // a span, array or view of the elements
      const auto elements = std::span(argument);
      return Stored<S>{put(S(elements.begin(), elements.end()))};
    }
  } else {
    return ForAll<A>{argument};
  }
}

}  // namespace detail

// One value for each member: as many as there are members. The values, or Refs of them.
template <class V>
detail::Each<V> each(const std::vector<V>& values) {
  static_assert(!std::is_same_v<V, bool>, "mobula: each of a vector of bits; use char");
  return {values};
}
template <class R>
detail::Each<Ref<R>> each(const MeshRef<R>& results) {
  return {results.refs()};
}

// The handles of n actors as one. Copyable; can be an argument, a result or a field of one. Members
// end when the last handle of them is gone.
template <class T>
class MeshHandle {
 public:
  MeshHandle() = default;
  explicit MeshHandle(std::vector<ActorHandle<T>> members) : members_(std::move(members)) {}

  std::size_t size() const noexcept { return members_.size(); }
  const ActorHandle<T>& member(std::size_t i) const { return members_.at(i); }
  const std::vector<ActorHandle<T>>& members() const noexcept { return members_; }

  // Members begin, begin + step, ... before end, as a mesh. Throws Error when these are none.
  MeshHandle slice(std::size_t begin, std::size_t end, std::size_t step = 1) const {
    return MeshHandle(detail::slice_of(members_, begin, end, step));
  }

  // Calls a method of every member; returns at once. A MeshRef; of a method that takes a Sink, the
  // vector of StreamRefs. Throws what ActorHandle::call throws, and Error for an each() of another
  // size.
  template <auto M, class... A>
  auto call(const A&... arguments) const {
    using Params = typename detail::Shape<decltype(M)>::Params;
    using Producer = detail::Produces<Params, typename detail::Shape<decltype(M)>::Result>;
    if constexpr (Producer::kItems) {
      using Given = typename Producer::Given;
      return call_all<M>(static_cast<Given*>(nullptr), arguments...);
    } else {
      using R = std::remove_cvref_t<typename detail::Shape<decltype(M)>::Result>;
      return MeshRef<R>(call_all<M>(static_cast<Params*>(nullptr), arguments...));
    }
  }

  // Ready when all constructors have run, with the error of each that threw.
  MeshRef<void> ready() const {
    std::vector<Ref<void>> refs;
    for (const ActorHandle<T>& each : members_) refs.push_back(each.ready());
    return MeshRef<void>(std::move(refs));
  }

 private:
  template <auto M, class... P, class... A>
  auto call_all(detail::Parameters<P...>*, const A&... arguments) const {
    static_assert(sizeof...(P) == sizeof...(A), "mobula: wrong number of arguments for the method");
    if constexpr (sizeof...(P) == sizeof...(A)) {
      const std::tuple dealt{detail::deal<P>(arguments, size())...};
      return std::apply(
          [this](const auto&... argument) {
            const auto call_one = [&](std::size_t i) {
              return members_[i].template call<M>(argument.of(i)...);
            };
            std::vector<decltype(call_one(0))> results;
            results.reserve(members_.size());
            for (std::size_t i = 0; i < members_.size(); ++i) results.push_back(call_one(i));
            return results;
          },
          dealt);
    }
  }

  std::vector<ActorHandle<T>> members_;
};

template <class T>
struct codec<MeshHandle<T>> {
  static void encode(Writer& writer, const MeshHandle<T>& mesh) {
    mobula::encode<std::vector<ActorHandle<T>>>(writer, mesh.members());
  }
  static MeshHandle<T> decode(Reader& reader) {
    return MeshHandle<T>(mobula::decode<std::vector<ActorHandle<T>>>(reader));
  }
};

namespace detail {

// What one member is given of an argument, and the type of a constructor's parameter for which that
// stands.
template <class A>
struct MeshArgument {
  using type = std::decay_t<const A>;
};
template <class V>
struct MeshArgument<Each<V>> {
  using type = V;
};
template <class A>
using MeshParameter = typename ConstructorParameter<typename MeshArgument<A>::type>::type;

template <class A>
using DealtArgument = decltype(deal<MeshParameter<A>>(std::declval<const A&>(), 0).of(0));

template <class T, class... A>
MeshHandle<T> create_members(ActorOptions options, std::size_t members, const A&... arguments) {
  const std::tuple dealt{deal<MeshParameter<A>>(arguments, members)...};
  const std::string name = options.name;
  std::vector<ActorHandle<T>> handles;
  handles.reserve(members);
  for (std::size_t i = 0; i < members; ++i) {
    if (!name.empty()) options.name = name + "-" + std::to_string(i);
    handles.push_back(std::apply(
        [&](const auto&... argument) { return create_actor<T>(&options, argument.of(i)...); },
        dealt));
  }
  return MeshHandle<T>(std::move(handles));
}

// Checked before the members are made, where the compiler has few lines to say.
template <class T, class... A>
MeshHandle<T> create_mesh(ActorOptions options, std::size_t members, const A&... arguments) {
  constexpr bool kFits = kHasConstructor<T, DealtArgument<A>...>;
  static_cast<void>(CheckConstructor<kFits, T, typename MeshArgument<A>::type...>());
  if constexpr (kFits) {
    return create_members<T>(std::move(options), members, arguments...);
  } else {
    return {};
  }
}

template <class T>
class MeshWithOptions {
 public:
  explicit MeshWithOptions(ActorOptions options) : options_(std::move(options)) {}
  template <class... A>
  MeshHandle<T> operator()(std::size_t members, const A&... arguments) const {
    return create_mesh<T>(options_, members, arguments...);
  }

 private:
  ActorOptions options_;
};

template <class T>
class MeshFactory {
 public:
  template <class... A>
  MeshHandle<T> operator()(std::size_t members, const A&... arguments) const {
    return create_mesh<T>({}, members, arguments...);
  }
  MeshWithOptions<T> with(ActorOptions options) const {
    return MeshWithOptions<T>(std::move(options));
  }
};

}  // namespace detail

// Starts so many actors, each constructed from these arguments (each(): one value for each). The
// options are each member's; a name gets the member's number: "block-0". Returns at once.
template <class T>
inline constexpr detail::MeshFactory<T> mesh{};

// Ends all members at once, as kill of an actor.
template <class T>
void kill(const MeshHandle<T>& mesh, KillOptions options = {}) {
  for (const ActorHandle<T>& member : mesh.members()) kill(member, options);
}

}  // namespace mobula
