/* [program] */
#include <mobula.h>
#include <stdint.h>
#include <stdio.h>

static int square(mobula_call* call, void* context) {
  int32_t x = 0;
  (void)context;
  if (mobula_call_value(call, &x, sizeof x)) return mobula_call_fail(call, NULL);
  x *= x;
  return mobula_call_return(call, mobula_value(&x, sizeof x));
}

int main(int argc, char** argv) {
  mobula_register("square", square, NULL); /* before mobula_init: workers come by here, too */
  if (mobula_init(argc, argv, NULL)) {
    fprintf(stderr, "%s\n", mobula_error_message());
    return 1;
  }
  const int32_t seven = 7;
  const mobula_argument number = mobula_value(&seven, sizeof seven);
  mobula_ref first, second;
  mobula_submit("square", &number, 1, NULL, &first);
  const mobula_argument its_value = mobula_by_ref(first);
  mobula_submit("square", &its_value, 1, NULL, &second); /* waits for the first, not for us */

  mobula_object* object = NULL;
  int32_t result = 0;
  const int failed =
      mobula_get(second, -1, &object) || mobula_object_value(object, &result, sizeof result);
  if (failed) fprintf(stderr, "%s\n", mobula_error_message());
  printf("%d\n", result); /* 2401 */
  mobula_object_release(object);
  mobula_ref_release(first);
  mobula_ref_release(second);
  mobula_shutdown();
  return result == 2401 ? 0 : 1;
}
/* [/program] */
