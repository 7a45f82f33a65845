/* Mobula for C, and for every language that can call C: tasks, actors and shared-memory objects.
 *
 * Functions that run remotely have names. They are C functions that were registered before
 * mobula_init(), and what C++ exports with MOBULA_EXPORT.
 *
 *   static int square(mobula_call* call, void* context) {
 *     int32_t x;
 *     if (mobula_call_value(call, &x, sizeof x)) return mobula_call_fail(call, NULL);
 *     x *= x;
 *     return mobula_call_return(call, mobula_value(&x, sizeof x));
 *   }
 *   int main(int argc, char** argv) {
 *     mobula_register("square", square, NULL);
 *     if (mobula_init(argc, argv, NULL)) return 1;  // does not return in a worker process
 *     int32_t seven = 7;
 *     mobula_argument argument = mobula_value(&seven, sizeof seven);
 *     mobula_ref result;
 *     mobula_submit("square", &argument, 1, NULL, &result);
 *     ...
 *
 * The program is its own worker: a worker process runs main() up to mobula_init(). So register
 * first, without conditions, and do nothing before that others can see.
 *
 * Functions that can fail return a mobula_status; mobula_error_message() then says what happened.
 * No exception passes through. Everything may be called from any thread.
 *
 * Stable: what is here keeps its meaning and layout as long as MOBULA_ABI_VERSION is the same, and
 * programs that were linked with an older library of that number run with a newer one. Structs that
 * may grow begin with their size. */
#ifndef MOBULA_H
#define MOBULA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MOBULA_ABI_VERSION 1

/* That of the library that runs; compare it with MOBULA_ABI_VERSION, which was compiled. */
int mobula_abi_version(void);

typedef enum mobula_status {
  MOBULA_OK = 0,
  MOBULA_ERROR = 1, /* misuse, or no session */
  MOBULA_TASK_ERROR = 2, /* the function failed */
  MOBULA_WORKER_CRASHED = 3,
  MOBULA_ACTOR_DIED = 4,
  MOBULA_ACTOR_UNAVAILABLE = 5,
  MOBULA_TASK_CANCELLED = 6,
  MOBULA_OBJECT_LOST = 7,
  MOBULA_RECONSTRUCTION_FAILED = 8,
  MOBULA_GET_TIMEOUT = 9,
  MOBULA_OBJECT_STORE_FULL = 10,
  MOBULA_OUT_OF_MEMORY = 11,
  MOBULA_OUT_OF_DISK = 12,
  MOBULA_UNSCHEDULABLE = 13,
  MOBULA_FUNCTION_NOT_FOUND = 14,
  MOBULA_NODE_DIED = 15,
  MOBULA_ACTOR_DEADLOCK = 16,
  MOBULA_AUTHENTICATION = 17,
  MOBULA_VERSION_MISMATCH = 18,
  MOBULA_PENDING_CALLS_LIMIT = 19,
  MOBULA_DECODE = 20, /* the bytes are no such value */
  MOBULA_LIBRARY_LOAD = 21,
  MOBULA_STREAM_STOPPED = 22,
  MOBULA_ACTOR_NOT_FOUND = 23,
  MOBULA_ACTOR_ALREADY_EXISTS = 24,
  MOBULA_DEADLINE_EXCEEDED = 25,
  MOBULA_PLACEMENT_GROUP_REMOVED = 26
} mobula_status;

/* Of the last call of this thread that failed; valid until the next one that fails. Never NULL. */
const char* mobula_error_message(void);

/* ---- The session. ---- */

typedef struct mobula_config {
  size_t size; /* sizeof(mobula_config) */
  double num_cpus; /* below 0: the cores this process may run on */
  uint64_t object_store_memory; /* bytes; 0: 30 % of the machine's memory */
  const char* code_search_path; /* libraries to load, parted by ':'; NULL: none */
  const char* spill_directory; /* NULL: a folder for temporary files */
  int log_to_driver; /* 1: the workers' output appears here */
} mobula_config;

/* The defaults. */
mobula_config mobula_config_default(void);

/* Starts a node; config may be NULL. In a worker process it does not return. */
int mobula_init(int argc, char** argv, const mobula_config* config);
/* Ends the session; all refs are void afterwards. Twice, or without a session, it does nothing. */
void mobula_shutdown(void);
int mobula_is_initialized(void);

/* ---- Values. ----
 *
 * Bytes are native, and the same as C++ writes:
 *   a value    the bytes of a number or a struct without pointers
 *   an array   a std::vector<T>, std::string or Buffer: a count and the elements
 *   a ref      stands for its value: the task runs when it is there
 *   a handle   the ref itself, for a function that takes a Ref<T> */

/* A counted handle of a value that may not exist yet. Zeros: empty. */
typedef struct mobula_ref {
  uint64_t opaque[2];
} mobula_ref;

void mobula_ref_retain(mobula_ref ref);
void mobula_ref_release(mobula_ref ref);

typedef struct mobula_argument {
  int32_t kind; /* made by the functions below */
  uint32_t element_size;
  uint32_t element_alignment;
  uint32_t reserved;
  const void* data;
  uint64_t count;
  mobula_ref ref;
} mobula_argument;

/* They point to `data` and keep no ref: what they name must live until they were used. */
mobula_argument mobula_value(const void* data, size_t size);
mobula_argument mobula_array(const void* data, size_t count, size_t element_size,
                             size_t element_alignment);
mobula_argument mobula_string(const char* text);
mobula_argument mobula_by_ref(mobula_ref ref);
mobula_argument mobula_handle(mobula_ref ref);

#define MOBULA_ARRAY(data, count, type) mobula_array((data), (count), sizeof(type), _Alignof(type))

/* ---- Tasks and objects. A ref that comes out is the caller's to release. ---- */

typedef struct mobula_options {
  size_t size; /* sizeof(mobula_options) */
  double num_cpus; /* below 0: the default, 1 for a task and 0 for an actor */
  double num_gpus; /* below 0: 0 */
  int max_retries; /* of a task whose worker crashed; -1: without end */
  int max_restarts; /* of an actor */
  const char* name; /* of a task, in errors and tools; NULL: the function's */
} mobula_options;
mobula_options mobula_options_default(void);

/* Calls a function by name; returns at once. options may be NULL. */
int mobula_submit(const char* function, const mobula_argument* arguments, size_t count,
                  const mobula_options* options, mobula_ref* result);

/* Stores a value or an array. */
int mobula_put(mobula_argument value, mobula_ref* result);

/* A value in place, read-only, pinned while it is held; it outlives its ref. */
typedef struct mobula_object mobula_object;

/* timeout_ns: below 0: for ever; 0: only look (MOBULA_GET_TIMEOUT). Fails as the task did. */
int mobula_get(mobula_ref ref, int64_t timeout_ns, mobula_object** object);
void mobula_object_release(mobula_object* object);
/* All bytes, also of values that C does not know. */
const void* mobula_object_data(const mobula_object* object);
size_t mobula_object_size(const mobula_object* object);
/* Copies a value of this very size. */
int mobula_object_value(const mobula_object* object, void* to, size_t size);
/* The elements of an array, where they lie. */
int mobula_object_array(const mobula_object* object, size_t element_size, size_t element_alignment,
                        const void** data, size_t* count);

/* Waits until num_returns refs have a value or an error; is_ready has a byte for each ref. */
int mobula_wait(const mobula_ref* refs, size_t count, size_t num_returns, int64_t timeout_ns,
                uint8_t* is_ready, size_t* ready_count);

/* *cancelled: 1 if the task will have no value; 0 if it had ended before. */
int mobula_cancel(mobula_ref ref, int force, int* cancelled);

/* ---- Actors. ---- */

typedef struct mobula_actor {
  mobula_ref ready; /* has a value when the actor was constructed, or its error */
  uint64_t opaque;
} mobula_actor;

/* Starts an actor of an exported class; options may be NULL. It ends when it was released and its
 * pending calls are done. */
int mobula_actor_create(const char* name, const mobula_argument* arguments, size_t count,
                        const mobula_options* options, mobula_actor* actor);
void mobula_actor_retain(mobula_actor actor);
void mobula_actor_release(mobula_actor actor);
/* Calls a method, such as "Counter::add", in the order of each caller. */
int mobula_actor_call(mobula_actor actor, const char* method, const mobula_argument* arguments,
                      size_t count, mobula_ref* result);
int mobula_actor_kill(mobula_actor actor);

/* ---- Functions written in C: before mobula_init(), under a name of their own. ---- */

typedef struct mobula_call mobula_call;

/* Reads the call's arguments in their order, does its work, and returns what mobula_call_return or
 * mobula_call_fail returned; 0 without either: it has a result without value. */
typedef int (*mobula_handler)(mobula_call* call, void* context);

int mobula_register(const char* name, mobula_handler handler, void* context);
/* A class of actors: the handler makes the object and hands it to mobula_call_set_self. `destroy`
 * may be NULL. */
int mobula_register_actor(const char* name, mobula_handler construct,
                          void (*destroy)(void* self, void* context), void* context);
/* Callable as "class_name::name", on actors of this class. */
int mobula_register_method(const char* class_name, const char* name, mobula_handler handler,
                           void* context);

/* The next argument; arrays lie in the store or in the call, and stay until the handler returns. */
int mobula_call_value(mobula_call* call, void* to, size_t size);
int mobula_call_array(mobula_call* call, size_t element_size, size_t element_alignment,
                      const void** data, size_t* count);
int mobula_call_handle(mobula_call* call, mobula_ref* ref);

void* mobula_call_self(mobula_call* call); /* in a method; NULL elsewhere */
void mobula_call_set_self(mobula_call* call, void* self); /* in a constructor */

/* 1: somebody has cancelled the call; what it returns is dropped. A loop asks it often. */
int mobula_call_should_cancel(mobula_call* call);

/* Once, at the end. The value is copied. */
int mobula_call_return(mobula_call* call, mobula_argument value);
/* The call has failed: whoever gets it sees MOBULA_TASK_ERROR with this message. NULL: that of the
 * last call that failed here. */
int mobula_call_fail(mobula_call* call, const char* message);

#ifdef __cplusplus
}
#endif

#endif
