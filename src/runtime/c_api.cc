// The C ABI over the C++ library. Exceptions end here: each function that can fail returns the
// error's code and keeps its text for the thread.
#include "mobula.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "mobula/mobula.h"
#include "runtime/cancelling.h"
#include "runtime/execution.h"
#include "runtime/registry.h"

namespace {

using mobula::Error;
using mobula::ErrorCode;
using mobula::Reader;
using mobula::Ref;
using mobula::RefAddress;
using mobula::Writer;
using mobula::detail::ArgumentTag;
using mobula::detail::Export;
using mobula::detail::ExportKind;
using mobula::detail::RefHandle;

static_assert(MOBULA_ERROR == static_cast<int>(ErrorCode::kError));
static_assert(MOBULA_TASK_ERROR == static_cast<int>(ErrorCode::kTaskError));
static_assert(MOBULA_WORKER_CRASHED == static_cast<int>(ErrorCode::kWorkerCrashed));
static_assert(MOBULA_ACTOR_DIED == static_cast<int>(ErrorCode::kActorDied));
static_assert(MOBULA_ACTOR_UNAVAILABLE == static_cast<int>(ErrorCode::kActorUnavailable));
static_assert(MOBULA_TASK_CANCELLED == static_cast<int>(ErrorCode::kTaskCancelled));
static_assert(MOBULA_OBJECT_LOST == static_cast<int>(ErrorCode::kObjectLost));
static_assert(MOBULA_RECONSTRUCTION_FAILED == static_cast<int>(ErrorCode::kReconstructionFailed));
static_assert(MOBULA_GET_TIMEOUT == static_cast<int>(ErrorCode::kGetTimeout));
static_assert(MOBULA_OBJECT_STORE_FULL == static_cast<int>(ErrorCode::kObjectStoreFull));
static_assert(MOBULA_OUT_OF_MEMORY == static_cast<int>(ErrorCode::kOutOfMemory));
static_assert(MOBULA_OUT_OF_DISK == static_cast<int>(ErrorCode::kOutOfDisk));
static_assert(MOBULA_UNSCHEDULABLE == static_cast<int>(ErrorCode::kUnschedulable));
static_assert(MOBULA_FUNCTION_NOT_FOUND == static_cast<int>(ErrorCode::kFunctionNotFound));
static_assert(MOBULA_NODE_DIED == static_cast<int>(ErrorCode::kNodeDied));
static_assert(MOBULA_ACTOR_DEADLOCK == static_cast<int>(ErrorCode::kActorDeadlock));
static_assert(MOBULA_AUTHENTICATION == static_cast<int>(ErrorCode::kAuthentication));
static_assert(MOBULA_VERSION_MISMATCH == static_cast<int>(ErrorCode::kVersionMismatch));
static_assert(MOBULA_PENDING_CALLS_LIMIT == static_cast<int>(ErrorCode::kPendingCallsLimit));
static_assert(MOBULA_DECODE == static_cast<int>(ErrorCode::kDecode));
static_assert(MOBULA_LIBRARY_LOAD == static_cast<int>(ErrorCode::kLibraryLoad));
static_assert(MOBULA_STREAM_STOPPED == static_cast<int>(ErrorCode::kStreamStopped));
static_assert(MOBULA_ACTOR_NOT_FOUND == static_cast<int>(ErrorCode::kActorNotFound));
static_assert(MOBULA_ACTOR_ALREADY_EXISTS == static_cast<int>(ErrorCode::kActorAlreadyExists));
static_assert(MOBULA_DEADLINE_EXCEEDED == static_cast<int>(ErrorCode::kDeadlineExceeded));
static_assert(MOBULA_PLACEMENT_GROUP_REMOVED ==
              static_cast<int>(ErrorCode::kPlacementGroupRemoved));

thread_local std::string last_message;

template <class Body>
int guarded(const Body& body) noexcept {
  try {
    body();
    return MOBULA_OK;
  } catch (const Error& e) {
    last_message = e.what();
    return static_cast<int>(e.code());
  } catch (const std::exception& e) {
    last_message = e.what();
    return MOBULA_ERROR;
  }
}

template <class T>
T& given(T* pointer, const char* what) {
  if (!pointer) throw Error(std::string(what) + " is NULL");
  return *pointer;
}

std::optional<mobula::Duration> timeout_of(std::int64_t ns) {
  if (ns < 0) return std::nullopt;
  return mobula::Duration(ns);
}

// ---- Refs: the two words are a RefHandle's.

static_assert(sizeof(mobula_ref) == sizeof(RefHandle) && std::is_trivially_copyable_v<RefHandle>);

RefHandle handle_of(const mobula_ref& ref) { return std::bit_cast<RefHandle>(ref); }

mobula_ref own(RefAddress address) {
  return std::bit_cast<mobula_ref>(RefHandle{address, mobula::detail::current_session()});
}

RefAddress checked_address(const mobula_ref& ref) {
  const RefHandle handle = handle_of(ref);
  mobula::detail::check_ref(handle.address, handle.session);
  return handle.address;
}

// ---- Values.

enum Kind : std::int32_t { kValue = 1, kArray, kRef, kHandle };

std::size_t block_alignment(std::size_t size, std::size_t element_alignment) {
  const std::size_t wanted =
      size >= mobula::detail::kLargeBlock ? mobula::detail::kLargeBlockAlignment : 1;
  return std::max(wanted, element_alignment);
}

void check_elements(std::size_t size, std::size_t alignment) {
  const bool power_of_two = alignment != 0 && (alignment & (alignment - 1)) == 0;
  if (size == 0 || !power_of_two || size % alignment != 0)
    throw Error("an array's element size and alignment do not fit each other");
}

void check_argument(const mobula_argument& value) {
  if (value.kind != kValue && value.kind != kArray && value.kind != kRef && value.kind != kHandle)
    throw Error("a mobula_argument was not made by mobula_value and its like");
  if (value.kind == kArray) check_elements(value.element_size, value.element_alignment);
  if ((value.kind == kValue || value.kind == kArray) && value.count != 0 && !value.data)
    throw Error("a mobula_argument's data is NULL");
  if (value.kind == kRef || value.kind == kHandle) checked_address(value.ref);
}

void write_value(Writer& writer, const mobula_argument& value) {
  if (value.kind == kHandle) {
    writer.raw(true);
    writer.ref(handle_of(value.ref).address);
  } else if (value.kind == kValue) {
    writer.bytes(value.data, value.count);
  } else {
    writer.raw(value.count);
    const std::size_t size = value.count * value.element_size;
    if (size == 0) return;
    writer.align(block_alignment(size, value.element_alignment));
    writer.bytes(value.data, size);
  }
}

void read_array(Reader& reader, std::size_t element_size, std::size_t alignment, const void*& data,
                std::size_t& count) {
  check_elements(element_size, alignment);
  const auto elements = reader.raw<std::uint64_t>();
  if (elements > reader.remaining() / element_size)
    mobula::detail::throw_decode_error("a count exceeds the bytes that are left");
  const std::size_t size = static_cast<std::size_t>(elements) * element_size;
  if (size != 0) reader.align(block_alignment(size, alignment));
  data = reader.bytes(size);
  count = static_cast<std::size_t>(elements);
}

// Encodes the arguments of a call and hands it to `submit`, as submit_arguments does in C++.
template <class Submit>
auto submit_arguments(const Export& what, const mobula::TaskOptions* options,
                      const mobula_argument* arguments, std::size_t count, const Submit& submit) {
  std::vector<RefAddress> waits_for;
  for (std::size_t i = 0; i < count; ++i) {
    check_argument((&given(arguments, "the list of arguments"))[i]);
    if (arguments[i].kind == kRef) waits_for.push_back(checked_address(arguments[i].ref));
  }
  const auto encode = [&](Writer& writer) {
    for (std::size_t i = 0; i < count; ++i) {
      if (arguments[i].kind == kRef) {
        writer.raw(ArgumentTag::Ref);
        writer.ref(handle_of(arguments[i].ref).address);
      } else {
        writer.raw(ArgumentTag::Value);
        write_value(writer, arguments[i]);
      }
    }
  };
  alignas(64) std::byte small[64];
  small[0] = {};
  Writer writer(small, sizeof small);
  encode(writer);
  const mobula::detail::Call call{what.function, options, waits_for.data(), waits_for.size()};
  return submit(
      call, writer, small,
      [](void* context, Writer& again) { (*static_cast<decltype(encode)*>(context))(again); },
      const_cast<void*>(static_cast<const void*>(&encode)));
}

// ---- Functions written in C.

struct Handler {
  mobula_handler run = nullptr;
  void* context = nullptr;
  void (*destroy)(void* self, void* context) = nullptr;
};

struct Instance {
  void* self;
  const Handler* handler;
};

// Filled before the session, read-only afterwards.
std::unordered_map<std::uint64_t, Handler>& handlers() {
  static std::unordered_map<std::uint64_t, Handler> all;
  return all;
}

}  // namespace

struct mobula_call {
  mobula::detail::Execution& execution;
  const Handler& handler;
  std::vector<std::byte> result = {};
  bool returned = false;
  std::string failure = {};
  void* self = nullptr;
};

struct mobula_object {
  Ref<void> ref;
  mobula::detail::Bytes bytes;
};

namespace {

// A handler has failed; its text is the task's error.
class CallFailed : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void run_handler(mobula_call& call) {
  last_message.clear();
  if (call.handler.run(&call, call.handler.context) == MOBULA_OK) return;
  if (call.failure.empty()) call.failure = last_message;  // it has passed on another call's status
  throw CallFailed(call.failure.empty() ? "the function failed" : call.failure);
}

void give_result(mobula_call& call) {
  call.execution.result(
      [&call](Writer& writer) { writer.bytes(call.result.data(), call.result.size()); });
}

const Handler& running_handler() {
  return handlers().at(mobula::runtime::current_frame()->record.function);
}

void invoke_function(mobula::detail::Execution& execution) {
  mobula_call call{execution, running_handler()};
  run_handler(call);
  give_result(call);
}

// On an actor of C: another one's methods were refused at the call.
void invoke_method(mobula::detail::Execution& execution) {
  mobula_call call{execution, running_handler()};
  call.self = static_cast<Instance*>(mobula::detail::Execution::instance())->self;
  run_handler(call);
  give_result(call);
}

void invoke_constructor(mobula::detail::Execution& execution) {
  mobula_call call{execution, running_handler()};
  run_handler(call);
  mobula::detail::Execution::set_instance(new Instance{call.self, &call.handler}, [](void* object) {
    const std::unique_ptr<Instance> instance(static_cast<Instance*>(object));
    const Handler& handler = *instance->handler;
    if (handler.destroy) handler.destroy(instance->self, handler.context);
  });
  execution.result([](Writer&) {});
}

// Methods of C are for actors of C, whose objects they understand.
std::string class_name_in_c(const std::string& name) { return name + " (C)"; }

void export_handler(const std::string& name, ExportKind kind, const std::string& class_name,
                    const Handler& handler) {
  if (name.empty()) throw Error("the name of a function is empty");
  if (!handler.run) throw Error("the handler of " + name + " is NULL");
  if (mobula::is_initialized())
    throw Error(name + " must be registered before mobula_init, so that workers have it, too");
  if (mobula::runtime::is_exported(name))
    throw Error("something is registered as " + name + " already");
  struct Kept {
    std::string name;
    std::string identity;
    std::string class_name;
    mobula::detail::FunctionInfo info;
  };
  static std::deque<Kept> kept;  // registered for ever
  Kept& entry = kept.emplace_back(Kept{name, "C function " + name, class_name, {}});
  const mobula::detail::Invoke invoke = kind == ExportKind::Constructor ? &invoke_constructor
                                        : kind == ExportKind::Method    ? &invoke_method
                                                                        : &invoke_function;
  entry.info = mobula::detail::register_function(entry.identity.c_str(), "", entry.name, invoke);
  handlers()[entry.info.key] = handler;
  const Export what{&entry.info, kind, {}, entry.class_name};
  mobula::detail::export_names(entry.name, {&what, 1});
}

std::optional<double> amount(double given_amount) {
  if (given_amount < 0) return std::nullopt;
  return given_amount;
}

// A struct of a caller that was compiled with an older header is shorter: the rest has its default.
template <class T>
T complete(const T* given_struct, const T& defaults) {
  T result = defaults;
  if (!given_struct) return result;
  if (given_struct->size < sizeof(std::size_t) || given_struct->size > sizeof(T)) {
    throw mobula::VersionMismatchError(
        "a struct is of another size than this library knows; its size must be set by the "
        "..._default() function");
  }
  std::memcpy(&result, given_struct, given_struct->size);
  return result;
}

}  // namespace

extern "C" {

int mobula_abi_version(void) { return MOBULA_ABI_VERSION; }

const char* mobula_error_message(void) { return last_message.c_str(); }

mobula_config mobula_config_default(void) {
  return {sizeof(mobula_config), -1, 0, nullptr, nullptr, 1};
}

int mobula_init(int argc, char** argv, const mobula_config* config) {
  return guarded([&] {
    const mobula_config all = complete(config, mobula_config_default());
    mobula::Config settings;
    settings.num_cpus = amount(all.num_cpus);
    if (all.object_store_memory != 0) settings.object_store_memory = all.object_store_memory;
    if (all.code_search_path) settings.code_search_path = all.code_search_path;
    if (all.spill_directory) settings.spill_directory = all.spill_directory;
    settings.log_to_driver = all.log_to_driver != 0;
    mobula::init(argc, argv, std::move(settings));
  });
}

void mobula_shutdown(void) { mobula::shutdown(); }
int mobula_is_initialized(void) { return mobula::is_initialized() ? 1 : 0; }

void mobula_ref_retain(mobula_ref ref) { mobula::detail::retain(handle_of(ref)); }
void mobula_ref_release(mobula_ref ref) { mobula::detail::release(handle_of(ref)); }

mobula_argument mobula_value(const void* data, size_t size) {
  return {kValue, 0, 0, 0, data, size, {}};
}

mobula_argument mobula_array(const void* data, size_t count, size_t element_size,
                             size_t element_alignment) {
  return {kArray,
          static_cast<std::uint32_t>(element_size),
          static_cast<std::uint32_t>(element_alignment),
          0,
          data,
          count,
          {}};
}

mobula_argument mobula_string(const char* text) {
  return mobula_array(text, text ? std::strlen(text) : 0, 1, 1);
}

mobula_argument mobula_by_ref(mobula_ref ref) { return {kRef, 0, 0, 0, nullptr, 0, ref}; }
mobula_argument mobula_handle(mobula_ref ref) { return {kHandle, 0, 0, 0, nullptr, 0, ref}; }

mobula_options mobula_options_default(void) {
  return {sizeof(mobula_options), -1, -1, mobula::TaskOptions().max_retries, 0, nullptr};
}

int mobula_submit(const char* function, const mobula_argument* arguments, size_t count,
                  const mobula_options* options, mobula_ref* result) {
  return guarded([&] {
    given(result, "the result");
    const Export& what =
        mobula::detail::find_export(&given(function, "the name"), ExportKind::Function, {});
    const mobula_options all = complete(options, mobula_options_default());
    mobula::TaskOptions settings;
    settings.num_cpus = amount(all.num_cpus);
    settings.num_gpus = amount(all.num_gpus);
    settings.max_retries = all.max_retries;
    if (all.name) settings.name = all.name;
    *result = own(submit_arguments(what, options ? &settings : nullptr, arguments, count,
                                   mobula::detail::submit_task));
  });
}

int mobula_put(mobula_argument value, mobula_ref* result) {
  return guarded([&] {
    given(result, "the result");
    check_argument(value);
    if (value.kind == kRef || value.kind == kHandle) throw Error("mobula_put stores no ref");
    const auto encode = [&value](Writer& writer) { write_value(writer, value); };
    alignas(8) std::byte small[64];
    small[0] = {};
    Writer writer(small, sizeof small);
    encode(writer);
    *result = own(mobula::detail::put_encoded(
        writer, small,
        [](void* context, Writer& again) { (*static_cast<decltype(encode)*>(context))(again); },
        const_cast<void*>(static_cast<const void*>(&encode))));
  });
}

int mobula_get(mobula_ref ref, int64_t timeout_ns, mobula_object** object) {
  return guarded([&] {
    given(object, "the object") = nullptr;
    const RefHandle handle = handle_of(ref);
    mobula::detail::Bytes bytes =
        mobula::detail::get_bytes(handle.address, handle.session, timeout_of(timeout_ns));
    mobula::detail::retain(handle.address);
    *object = new mobula_object{Ref<void>::own(handle.address), std::move(bytes)};
  });
}

void mobula_object_release(mobula_object* object) { delete object; }
const void* mobula_object_data(const mobula_object* object) { return object->bytes.data; }
size_t mobula_object_size(const mobula_object* object) { return object->bytes.size; }

int mobula_object_value(const mobula_object* object, void* to, size_t size) {
  return guarded([&] {
    const mobula::detail::Bytes& bytes = given(object, "the object").bytes;
    if (bytes.size != size) {
      throw mobula::DecodeError("the value has " + std::to_string(bytes.size) + " bytes, not " +
                                std::to_string(size));
    }
    if (size != 0) std::memcpy(&given(static_cast<std::byte*>(to), "the place"), bytes.data, size);
  });
}

int mobula_object_array(const mobula_object* object, size_t element_size, size_t element_alignment,
                        const void** data, size_t* count) {
  return guarded([&] {
    const mobula::detail::Bytes& bytes = given(object, "the object").bytes;
    Reader reader(bytes.data, bytes.size);
    read_array(reader, element_size, element_alignment, given(data, "the place of the data"),
               given(count, "the place of the count"));
    if (reader.remaining() != 0)
      mobula::detail::throw_decode_error("its elements are of another size");
  });
}

int mobula_wait(const mobula_ref* refs, size_t count, size_t num_returns, int64_t timeout_ns,
                uint8_t* is_ready, size_t* ready_count) {
  return guarded([&] {
    given(is_ready, "the list of flags");
    std::vector<RefHandle> handles;
    for (std::size_t i = 0; i < count; ++i)
      handles.push_back(handle_of((&given(refs, "the list of refs"))[i]));
    const std::vector<std::size_t> ready =
        mobula::detail::wait_refs(handles, num_returns, timeout_of(timeout_ns));
    std::fill(is_ready, is_ready + count, std::uint8_t{0});
    for (const std::size_t i : ready) is_ready[i] = 1;
    if (ready_count) *ready_count = ready.size();
  });
}

int mobula_cancel(mobula_ref ref, int force, int* cancelled) {
  return guarded([&] {
    const RefHandle handle = handle_of(ref);
    const bool done = mobula::detail::cancel_task(handle.address, handle.session, force != 0, true);
    if (cancelled) *cancelled = done ? 1 : 0;
  });
}

int mobula_actor_create(const char* name, const mobula_argument* arguments, size_t count,
                        const mobula_options* options, mobula_actor* actor) {
  return guarded([&] {
    given(actor, "the actor");
    const Export& what =
        mobula::detail::find_export(&given(name, "the name"), ExportKind::Constructor, {});
    const mobula_options all = complete(options, mobula_options_default());
    mobula::ActorOptions settings;
    settings.num_cpus = amount(all.num_cpus);
    settings.num_gpus = amount(all.num_gpus);
    settings.max_restarts = all.max_restarts;
    const mobula::detail::ActorAddress address = submit_arguments(
        what, nullptr, arguments, count,
        [&](const mobula::detail::Call& call, const Writer& writer, const std::byte* bytes,
            mobula::detail::EncodeAgain again, void* context) {
          return mobula::detail::submit_actor(call, &settings, what.class_name, writer, bytes,
                                              again, context);
        });
    *actor = {own(address.creation), address.actor_class};
  });
}

void mobula_actor_retain(mobula_actor actor) { mobula_ref_retain(actor.ready); }
void mobula_actor_release(mobula_actor actor) { mobula_ref_release(actor.ready); }

int mobula_actor_call(mobula_actor actor, const char* method, const mobula_argument* arguments,
                      size_t count, mobula_ref* result) {
  return guarded([&] {
    given(result, "the result");
    const RefHandle handle = handle_of(actor.ready);
    const mobula::detail::ActorAddress address{handle.address,
                                               static_cast<std::uint32_t>(actor.opaque)};
    const Export& what =
        mobula::detail::find_export(&given(method, "the name"), ExportKind::Method, {});
    mobula::detail::check_class_of_method(address, handle.session, what, method);
    *result = own(submit_arguments(
        what, nullptr, arguments, count,
        [&](const mobula::detail::Call& call, const Writer& writer, const std::byte* bytes,
            mobula::detail::EncodeAgain again, void* context) {
          return mobula::detail::submit_call(call, nullptr, address, writer, bytes, again, context);
        }));
  });
}

int mobula_actor_kill(mobula_actor actor) {
  return guarded([&] {
    const RefAddress creation = checked_address(actor.ready);
    mobula::detail::retain(creation);
    mobula::kill(
        mobula::AnyActor(Ref<void>::own(creation), static_cast<std::uint32_t>(actor.opaque)));
  });
}

int mobula_register(const char* name, mobula_handler handler, void* context) {
  return guarded([&] {
    export_handler(&given(name, "the name"), ExportKind::Function, {}, {handler, context});
  });
}

int mobula_register_actor(const char* name, mobula_handler construct,
                          void (*destroy)(void* self, void* context), void* context) {
  return guarded([&] {
    const std::string class_name(&given(name, "the name"));
    export_handler(class_name, ExportKind::Constructor, class_name_in_c(class_name),
                   {construct, context, destroy});
  });
}

int mobula_register_method(const char* class_name, const char* name, mobula_handler handler,
                           void* context) {
  return guarded([&] {
    const std::string of(&given(class_name, "the class's name"));
    export_handler(of + "::" + &given(name, "the name"), ExportKind::Method, class_name_in_c(of),
                   {handler, context});
  });
}

int mobula_call_value(mobula_call* call, void* to, size_t size) {
  return guarded([&] {
    const std::byte* at = call->execution.argument().bytes(size);
    if (size != 0) std::memcpy(to, at, size);
  });
}

int mobula_call_array(mobula_call* call, size_t element_size, size_t element_alignment,
                      const void** data, size_t* count) {
  return guarded([&] {
    read_array(call->execution.argument(), element_size, element_alignment,
               given(data, "the place of the data"), given(count, "the place of the count"));
  });
}

int mobula_call_handle(mobula_call* call, mobula_ref* ref) {
  return guarded([&] {
    Reader& reader = call->execution.argument();
    given(ref, "the place of the ref") = {};
    if (!reader.raw<bool>()) return;
    const RefAddress address = reader.ref();
    mobula::detail::adopt_decoded(address);
    *ref = own(address);
  });
}

void* mobula_call_self(mobula_call* call) { return call->self; }
void mobula_call_set_self(mobula_call* call, void* self) { call->self = self; }

int mobula_call_should_cancel(mobula_call*) { return mobula::runtime::should_stop() ? 1 : 0; }

int mobula_call_return(mobula_call* call, mobula_argument value) {
  return guarded([&] {
    check_argument(value);
    if (value.kind == kRef || value.kind == kHandle)
      throw Error("mobula_call_return gives a value; a function of C returns no ref");
    if (call->returned) throw Error("a function returns once");
    call->returned = true;
    Writer size(nullptr, 0);
    write_value(size, value);
    call->result.resize(size.size());
    Writer writer(call->result.data(), call->result.size());
    write_value(writer, value);
  });
}

int mobula_call_fail(mobula_call* call, const char* message) {
  call->failure = message ? message : last_message;
  return MOBULA_TASK_ERROR;
}

}  // extern "C"
