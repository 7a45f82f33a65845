/* The C ABI, from a program in C11: every function of mobula.h, and that errors are codes. */
#define _POSIX_C_SOURCE 199309L /* nanosleep */
#include <mobula.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void require(int holds, const char* what, int line) {
  if (holds) return;
  fprintf(stderr, "c_abi.c:%d: does not hold: %s (last error: %s)\n", line, what,
          mobula_error_message());
  exit(1);
}
#define HOLDS(condition) require((condition), #condition, __LINE__)

enum { kStore = 64 << 20 }; /* bytes of object memory */

/* ---- What workers run. ---- */

static int square(mobula_call* call, void* context) {
  int32_t x = 0;
  (void)context;
  if (mobula_call_value(call, &x, sizeof x)) return mobula_call_fail(call, NULL);
  x *= x;
  return mobula_call_return(call, mobula_value(&x, sizeof x));
}

/* The sum of an array of doubles, times a factor of the registration. */
static int scaled_sum(mobula_call* call, void* context) {
  const void* data = NULL;
  size_t count = 0;
  double sum = 0;
  if (mobula_call_array(call, sizeof(double), _Alignof(double), &data, &count)) return MOBULA_ERROR;
  for (size_t i = 0; i < count; ++i) sum += ((const double*)data)[i];
  sum *= *(const double*)context;
  return mobula_call_return(call, mobula_value(&sum, sizeof sum));
}

static int reversed(mobula_call* call, void* context) {
  const void* data = NULL;
  size_t count = 0;
  int status = 0;
  (void)context;
  if (mobula_call_array(call, 1, 1, &data, &count)) return MOBULA_ERROR;
  char* text = malloc(count + 1);
  for (size_t i = 0; i < count; ++i) text[i] = ((const char*)data)[count - 1 - i];
  status = mobula_call_return(call, mobula_array(text, count, 1, 1));
  free(text);
  return status;
}

static int refuse(mobula_call* call, void* context) {
  (void)context;
  return mobula_call_fail(call, "not today");
}

static int nothing(mobula_call* call, void* context) {
  (void)call;
  (void)context;
  return MOBULA_OK;
}

/* Only a method has an object. */
static int has_no_self(mobula_call* call, void* context) {
  (void)context;
  return mobula_call_self(call) == NULL ? MOBULA_OK : mobula_call_fail(call, "there is an object");
}

static int crashes(mobula_call* call, void* context) {
  (void)call;
  (void)context;
  _Exit(3);
}

static int never_listens(mobula_call* call, void* context) {
  const struct timespec pause = {1, 0};
  (void)call;
  (void)context;
  for (;;) nanosleep(&pause, NULL);
  return MOBULA_OK;
}

static int runs_until_cancelled(mobula_call* call, void* context) {
  const struct timespec pause = {0, 1000000};
  (void)context;
  while (!mobula_call_should_cancel(call)) nanosleep(&pause, NULL);
  return MOBULA_OK;
}

static int waits_for_ever(mobula_call* call, void* context) {
  mobula_ref ref;
  mobula_object* object = NULL;
  (void)context;
  if (mobula_call_handle(call, &ref)) return MOBULA_ERROR;
  const int status = mobula_get(ref, -1, &object); /* cancelled in here */
  mobula_object_release(object);
  mobula_ref_release(ref);
  return status;
}

/* Takes a ref itself, submits with it, and waits for the result. */
static int square_of_handle(mobula_call* call, void* context) {
  mobula_ref ref, result;
  mobula_object* object = NULL;
  int32_t x = 0;
  (void)context;
  if (mobula_call_handle(call, &ref)) return MOBULA_ERROR;
  const mobula_argument argument = mobula_by_ref(ref);
  if (mobula_submit("square", &argument, 1, NULL, &result)) return MOBULA_ERROR;
  if (mobula_get(result, -1, &object) || mobula_object_value(object, &x, sizeof x))
    return MOBULA_ERROR;
  mobula_object_release(object);
  mobula_ref_release(result);
  mobula_ref_release(ref);
  return mobula_call_return(call, mobula_value(&x, sizeof x));
}

struct counter {
  int64_t n;
};

static int make_counter(mobula_call* call, void* context) {
  struct counter* self = malloc(sizeof *self);
  (void)context;
  if (mobula_call_value(call, &self->n, sizeof self->n)) return MOBULA_ERROR;
  mobula_call_set_self(call, self);
  return MOBULA_OK;
}

static void destroy_counter(void* self, void* context) {
  (void)context;
  free(self);
}

static int add_to_counter(mobula_call* call, void* context) {
  struct counter* self = mobula_call_self(call);
  int64_t k = 0;
  (void)context;
  if (mobula_call_value(call, &k, sizeof k)) return MOBULA_ERROR;
  self->n += k;
  return mobula_call_return(call, mobula_value(&self->n, sizeof self->n));
}

/* ---- What the driver does. ---- */

static int32_t int_of(mobula_ref ref) {
  mobula_object* object = NULL;
  int32_t value = 0;
  HOLDS(mobula_get(ref, 30000000000, &object) == MOBULA_OK);
  HOLDS(mobula_object_size(object) == sizeof value);
  HOLDS(mobula_object_value(object, &value, sizeof value) == MOBULA_OK);
  HOLDS(memcmp(mobula_object_data(object), &value, sizeof value) == 0);
  mobula_object_release(object);
  return value;
}

static mobula_ref submit(const char* name, mobula_argument argument) {
  mobula_ref result;
  HOLDS(mobula_submit(name, &argument, 1, NULL, &result) == MOBULA_OK);
  return result;
}

static void tasks(void) {
  const int32_t seven = 7;
  const mobula_ref a = submit("square", mobula_value(&seven, sizeof seven));
  const mobula_ref b = submit("square", mobula_by_ref(a)); /* a data edge */
  const mobula_ref c = submit("square_of_handle", mobula_handle(a));
  HOLDS(int_of(b) == 2401);
  HOLDS(int_of(a) == 49);
  HOLDS(int_of(c) == 2401);

  mobula_options options = mobula_options_default();
  options.num_cpus = 0.5;
  options.name = "by C";
  const mobula_argument argument = mobula_value(&seven, sizeof seven);
  mobula_ref d;
  HOLDS(mobula_submit("square", &argument, 1, &options, &d) == MOBULA_OK);
  HOLDS(int_of(d) == 49);

  mobula_ref_retain(d);
  mobula_ref_release(d);
  HOLDS(int_of(d) == 49);

  mobula_object* object = NULL;
  mobula_ref crash;
  options.max_retries = 1;
  HOLDS(mobula_submit("crashes", NULL, 0, &options, &crash) == MOBULA_OK);
  HOLDS(mobula_get(crash, -1, &object) == MOBULA_WORKER_CRASHED && object == NULL);
  HOLDS(strstr(mobula_error_message(), "by C (id ") != NULL);
  HOLDS(strstr(mobula_error_message(), "it was tried 2 times") != NULL);
  mobula_ref_release(crash);
  const mobula_ref all[] = {a, b, c, d};
  for (size_t i = 0; i < 4; ++i) mobula_ref_release(all[i]);
}

static void arrays(void) {
  enum { kCount = 10000 };
  double* values = malloc(kCount * sizeof *values);
  for (int i = 0; i < kCount; ++i) values[i] = 0.5;
  mobula_ref stored;
  HOLDS(mobula_put(MOBULA_ARRAY(values, kCount, double), &stored) == MOBULA_OK);
  free(values);
  const mobula_ref sum = submit("scaled_sum", mobula_by_ref(stored));
  mobula_object* object = NULL;
  double result = 0;
  HOLDS(mobula_get(sum, -1, &object) == MOBULA_OK);
  HOLDS(mobula_object_value(object, &result, sizeof result) == MOBULA_OK);
  HOLDS(result == 10000);
  mobula_object_release(object);

  HOLDS(mobula_get(stored, 0, &object) == MOBULA_OK);
  mobula_ref_release(stored); /* the object outlives it */
  const void* data = NULL;
  size_t count = 0;
  HOLDS(mobula_object_array(object, sizeof(double), _Alignof(double), &data, &count) == MOBULA_OK);
  HOLDS(count == kCount && ((const double*)data)[kCount - 1] == 0.5);
  HOLDS(mobula_object_array(object, 16, 8, &data, &count) == MOBULA_DECODE);
  HOLDS(mobula_object_value(object, &result, sizeof result) == MOBULA_DECODE);
  mobula_object_release(object);

  const mobula_ref text = submit("reversed", mobula_string("lobster"));
  HOLDS(mobula_get(text, -1, &object) == MOBULA_OK);
  HOLDS(mobula_object_array(object, 1, 1, &data, &count) == MOBULA_OK);
  HOLDS(count == 7 && memcmp(data, "retsbol", 7) == 0);
  mobula_object_release(object);
  mobula_ref_release(text);
  mobula_ref_release(sum);
}

static void waiting(void) {
  mobula_ref refs[3];
  for (int32_t i = 0; i < 3; ++i) refs[i] = submit("square", mobula_value(&i, sizeof i));
  uint8_t is_ready[3] = {0};
  size_t ready = 0;
  HOLDS(mobula_wait(refs, 3, 3, 30000000000, is_ready, &ready) == MOBULA_OK);
  HOLDS(ready == 3 && is_ready[0] && is_ready[1] && is_ready[2]);
  HOLDS(mobula_wait(refs, 3, 4, 0, is_ready, &ready) == MOBULA_ERROR);

  mobula_ref_release(refs[1]);
  HOLDS(mobula_submit("runs_until_cancelled", NULL, 0, NULL, &refs[1]) == MOBULA_OK);
  HOLDS(mobula_wait(refs, 3, 3, 0, is_ready, &ready) == MOBULA_OK);
  HOLDS(ready == 2 && is_ready[0] && !is_ready[1] && is_ready[2]);
  HOLDS(mobula_cancel(refs[1], 0, NULL) == MOBULA_OK);
  for (int i = 0; i < 3; ++i) mobula_ref_release(refs[i]);
}

static void actors(void) {
  const int64_t ten = 10, five = 5;
  const mobula_argument from = mobula_value(&ten, sizeof ten);
  const mobula_argument by = mobula_value(&five, sizeof five);
  mobula_actor counter;
  mobula_ref first, second;
  mobula_object* object = NULL;
  int64_t n = 0;
  HOLDS(mobula_actor_create("Counter", &from, 1, NULL, &counter) == MOBULA_OK);
  HOLDS(mobula_actor_call(counter, "Counter::add", &by, 1, &first) == MOBULA_OK);
  HOLDS(mobula_actor_call(counter, "Counter::add", &by, 1, &second) == MOBULA_OK);
  HOLDS(mobula_get(second, -1, &object) == MOBULA_OK);
  HOLDS(mobula_object_value(object, &n, sizeof n) == MOBULA_OK && n == 20);
  mobula_object_release(object);
  mobula_actor_retain(counter);
  mobula_actor_release(counter);
  mobula_ref_release(first);
  mobula_ref_release(second);

  HOLDS(mobula_actor_call(counter, "Tally::sum", NULL, 0, &first) == MOBULA_ERROR);
  HOLDS(strstr(mobula_error_message(), "the actor is of class Counter (C)") != NULL);
  mobula_options restarted = mobula_options_default();
  restarted.max_restarts = 1;
  mobula_actor phoenix;
  HOLDS(mobula_actor_create("Counter", &from, 1, &restarted, &phoenix) == MOBULA_OK);
  HOLDS(mobula_actor_call(phoenix, "Counter::crash", NULL, 0, &first) == MOBULA_OK);
  HOLDS(mobula_get(first, -1, &object) == MOBULA_ACTOR_UNAVAILABLE);
  mobula_ref_release(first);
  HOLDS(mobula_actor_call(phoenix, "Counter::add", &by, 1, &first) == MOBULA_OK);
  HOLDS(mobula_get(first, -1, &object) == MOBULA_OK);
  HOLDS(mobula_object_value(object, &n, sizeof n) == MOBULA_OK && n == 15);
  mobula_object_release(object);
  mobula_ref_release(first);
  mobula_actor_release(phoenix);

  HOLDS(mobula_actor_kill(counter) == MOBULA_OK);
  HOLDS(mobula_actor_call(counter, "Counter::add", &by, 1, &first) == MOBULA_OK);
  HOLDS(mobula_get(first, -1, &object) == MOBULA_ACTOR_DIED && object == NULL);
  mobula_ref_release(first);
  mobula_actor_release(counter);
}

static void from_cpp(void) { /* of the library tests/plugins/arithmetic.cc */
  const int32_t a = 20, b = 22;
  const mobula_argument both[] = {mobula_value(&a, sizeof a), mobula_value(&b, sizeof b)};
  mobula_ref sum;
  HOLDS(mobula_submit("add", both, 2, NULL, &sum) == MOBULA_OK);
  HOLDS(int_of(sum) == 42);
  mobula_ref_release(sum);

  mobula_actor tally;
  HOLDS(mobula_actor_create("Tally", both, 1, NULL, &tally) == MOBULA_OK);
  HOLDS(mobula_actor_call(tally, "Tally::add", both + 1, 1, &sum) == MOBULA_OK);
  HOLDS(int_of(sum) == 42);
  mobula_ref_release(sum);
  mobula_actor_release(tally);
}

static void errors(void) {
  const int32_t one = 1;
  const mobula_argument argument = mobula_value(&one, sizeof one);
  mobula_object* object = NULL;
  mobula_ref ref;

  HOLDS(mobula_submit("no such", &argument, 1, NULL, &ref) == MOBULA_FUNCTION_NOT_FOUND);
  HOLDS(strstr(mobula_error_message(), "no such") != NULL);
  HOLDS(mobula_submit("Counter", &argument, 1, NULL, &ref) == MOBULA_ERROR);
  HOLDS(mobula_submit(NULL, &argument, 1, NULL, &ref) == MOBULA_ERROR);
  HOLDS(mobula_submit("square", NULL, 1, NULL, &ref) == MOBULA_ERROR);
  HOLDS(mobula_submit("square", &argument, 1, NULL, NULL) == MOBULA_ERROR);
  HOLDS(mobula_register("late", nothing, NULL) == MOBULA_ERROR);
  const mobula_argument unmade = {0};
  HOLDS(mobula_submit("square", &unmade, 1, NULL, &ref) == MOBULA_ERROR);
  mobula_options of_another_time = mobula_options_default();
  of_another_time.size = 4000;
  HOLDS(mobula_submit("square", &argument, 1, &of_another_time, &ref) == MOBULA_VERSION_MISMATCH);
  mobula_options greedy = mobula_options_default();
  greedy.num_cpus = 1e6;
  HOLDS(mobula_submit("nothing", NULL, 0, &greedy, &ref) == MOBULA_UNSCHEDULABLE);
  greedy.num_cpus = -1;
  greedy.num_gpus = 1;
  HOLDS(mobula_submit("nothing", NULL, 0, &greedy, &ref) == MOBULA_UNSCHEDULABLE);
  char* large = calloc(kStore, 1);
  HOLDS(mobula_put(mobula_array(large, kStore, 1, 1), &ref) == MOBULA_OBJECT_STORE_FULL);
  free(large);
  HOLDS(mobula_submit("has_no_self", NULL, 0, NULL, &ref) == MOBULA_OK);
  HOLDS(mobula_get(ref, -1, &object) == MOBULA_OK);
  mobula_object_release(object);
  mobula_ref_release(ref);
  const mobula_ref empty = {{0, 0}};
  HOLDS(mobula_get(empty, 0, &object) == MOBULA_ERROR);

  ref = submit("refuse", argument);
  HOLDS(mobula_get(ref, -1, &object) == MOBULA_TASK_ERROR);
  HOLDS(strstr(mobula_error_message(), "not today") != NULL);
  mobula_ref_release(ref);
  ref = submit("square", mobula_value(NULL, 0)); /* too few bytes */
  HOLDS(mobula_get(ref, -1, &object) == MOBULA_TASK_ERROR);
  HOLDS(strstr(mobula_error_message(), "cut short") != NULL);
  mobula_ref_release(ref);
  HOLDS(mobula_submit("nothing", NULL, 0, NULL, &ref) == MOBULA_OK);
  HOLDS(mobula_get(ref, -1, &object) == MOBULA_OK && mobula_object_size(object) == 0);
  mobula_object_release(object);
  mobula_ref_release(ref);
}

static void cancelling(void) {
  mobula_ref stuck;
  mobula_object* object = NULL;
  int cancelled = 0;
  HOLDS(mobula_submit("runs_until_cancelled", NULL, 0, NULL, &stuck) == MOBULA_OK);
  const mobula_ref waiter = submit("waits_for_ever", mobula_handle(stuck));
  HOLDS(mobula_get(waiter, 50000000, &object) == MOBULA_GET_TIMEOUT);
  HOLDS(mobula_cancel(waiter, 0, &cancelled) == MOBULA_OK && cancelled == 1);
  HOLDS(mobula_get(waiter, -1, &object) == MOBULA_TASK_CANCELLED);
  HOLDS(mobula_cancel(stuck, 0, &cancelled) == MOBULA_OK && cancelled == 1);
  HOLDS(mobula_get(stuck, -1, &object) == MOBULA_TASK_CANCELLED);
  HOLDS(mobula_cancel(stuck, 0, &cancelled) == MOBULA_OK && cancelled == 1);

  mobula_ref deaf;
  HOLDS(mobula_submit("never_listens", NULL, 0, NULL, &deaf) == MOBULA_OK);
  HOLDS(mobula_get(deaf, 300000000, &object) == MOBULA_GET_TIMEOUT); /* it runs by now */
  HOLDS(mobula_cancel(deaf, 0, NULL) == MOBULA_OK);
  HOLDS(mobula_get(deaf, 0, &object) == MOBULA_GET_TIMEOUT);
  HOLDS(mobula_cancel(deaf, 1, NULL) == MOBULA_OK);
  HOLDS(mobula_get(deaf, 30000000000, &object) == MOBULA_TASK_CANCELLED);
  mobula_ref_release(deaf);
  const int32_t one = 1;
  const mobula_ref done = submit("square", mobula_value(&one, sizeof one));
  HOLDS(int_of(done) == 1);
  HOLDS(mobula_cancel(done, 0, &cancelled) == MOBULA_OK && cancelled == 0);
  mobula_ref_release(done);
  mobula_ref_release(waiter);
  mobula_ref_release(stuck);
}

int main(int argc, char** argv) {
  static const double factor = 2;
  HOLDS(mobula_abi_version() == MOBULA_ABI_VERSION);
  HOLDS(mobula_register("square", square, NULL) == MOBULA_OK);
  HOLDS(mobula_register("square", square, NULL) == MOBULA_ERROR);
  HOLDS(mobula_register("scaled_sum", scaled_sum, (void*)&factor) == MOBULA_OK);
  HOLDS(mobula_register("reversed", reversed, NULL) == MOBULA_OK);
  HOLDS(mobula_register("refuse", refuse, NULL) == MOBULA_OK);
  HOLDS(mobula_register("nothing", nothing, NULL) == MOBULA_OK);
  HOLDS(mobula_register("has_no_self", has_no_self, NULL) == MOBULA_OK);
  HOLDS(mobula_register("crashes", crashes, NULL) == MOBULA_OK);
  HOLDS(mobula_register("never_listens", never_listens, NULL) == MOBULA_OK);
  HOLDS(mobula_register("runs_until_cancelled", runs_until_cancelled, NULL) == MOBULA_OK);
  HOLDS(mobula_register("waits_for_ever", waits_for_ever, NULL) == MOBULA_OK);
  HOLDS(mobula_register("square_of_handle", square_of_handle, NULL) == MOBULA_OK);
  HOLDS(mobula_register_actor("Counter", make_counter, destroy_counter, NULL) == MOBULA_OK);
  HOLDS(mobula_register_method("Counter", "add", add_to_counter, NULL) == MOBULA_OK);
  HOLDS(mobula_register_method("Counter", "crash", crashes, NULL) == MOBULA_OK);
  HOLDS(!mobula_is_initialized());

  mobula_config config = mobula_config_default();
  config.num_cpus = 2;
  config.object_store_memory = kStore;
  config.code_search_path = MOBULA_PLUGIN;
  config.spill_directory = "/no/such/folder";
  HOLDS(mobula_init(argc, argv, &config) == MOBULA_ERROR);
  HOLDS(strstr(mobula_error_message(), "/no/such/folder") != NULL);
  config.spill_directory = NULL;
  HOLDS(mobula_init(argc, argv, &config) == MOBULA_OK); /* a worker does not come back */
  HOLDS(mobula_is_initialized());
  tasks();
  arrays();
  waiting();
  actors();
  from_cpp();
  errors();
  cancelling();
  mobula_shutdown();
  mobula_shutdown();
  HOLDS(!mobula_is_initialized());
  const mobula_argument none = mobula_string("");
  mobula_ref ref;
  HOLDS(mobula_submit("square", &none, 1, NULL, &ref) == MOBULA_ERROR);
  puts("the C ABI holds");
  return 0;
}
