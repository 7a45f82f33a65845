# What every target of Mobula shares: warnings, sanitizers, and the rule that a room
# (a folder of src/) is one library with its unit tests beside its sources.

function(mobula_compile_options target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # g++ 12 warns of overlapping copies inside std::string (its bug 105329).
    target_compile_options(${target} PRIVATE -Wno-restrict)
  endif()
  if(MOBULA_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${MOBULA_SANITIZE} -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${MOBULA_SANITIZE})
    if(MOBULA_SANITIZE STREQUAL "address")
      target_compile_options(${target} PRIVATE -fsanitize=undefined -fno-sanitize-recover=undefined)
      target_link_options(${target} PRIVATE -fsanitize=undefined)
    endif()
  endif()
endfunction()

# mobula_add_room(NAME [DEPENDS room...]): all *.cc of this folder but the tests.
function(mobula_add_room name)
  cmake_parse_arguments(ROOM "" "" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "(_test|_main)\\.cc$")
  add_library(mobula_${name} OBJECT ${sources})
  mobula_compile_options(mobula_${name})
  target_include_directories(mobula_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
  foreach(room ${ROOM_DEPENDS})
    target_link_libraries(mobula_${name} PUBLIC mobula_${room})
  endforeach()
  set_property(GLOBAL APPEND PROPERTY MOBULA_ROOMS ${name})
  set_property(GLOBAL PROPERTY MOBULA_ROOM_DIR_${name} ${CMAKE_CURRENT_SOURCE_DIR})
endfunction()

# Building this target builds what a sanitized build tree tests, and nothing else.
add_custom_target(sanitize_tests)

# doctest's main() costs three seconds to compile: once for all test programs.
function(mobula_link_doctest_main target)
  if(NOT TARGET mobula_doctest_main)
    add_library(mobula_doctest_main OBJECT ${PROJECT_SOURCE_DIR}/tests/support/doctest_main.cc)
    mobula_compile_options(mobula_doctest_main)
    target_link_libraries(mobula_doctest_main PUBLIC doctest::doctest)
  endif()
  target_link_libraries(${target} PRIVATE mobula_doctest_main)
endfunction()

# A report of a sanitizer ends the process that made it: the test, or a child whose exit it checks.
# tsan waits for races at each exit, by default for a second: too long where a test has many processes.
function(mobula_test_environment test)
  set_property(TEST ${test} APPEND PROPERTY ENVIRONMENT
    "ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1"
    "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1"
    "TSAN_OPTIONS=halt_on_error=1:atexit_sleep_ms=50:second_deadlock_stack=1:die_after_fork=0")
endfunction()

# The test runs in sanitized builds too.
function(mobula_sanitize_test test target)
  set_property(TEST ${test} APPEND PROPERTY LABELS sanitize)
  add_dependencies(sanitize_tests ${target})
endfunction()

# One test program per room that has *_test.cc files; called after src/ is known.
function(mobula_add_room_tests)
  get_property(rooms GLOBAL PROPERTY MOBULA_ROOMS)
  foreach(room ${rooms})
    get_property(dir GLOBAL PROPERTY MOBULA_ROOM_DIR_${room})
    file(GLOB tests CONFIGURE_DEPENDS ${dir}/*_test.cc)
    if(tests)
      add_executable(test_${room} ${tests})
      mobula_compile_options(test_${room})
      mobula_link_doctest_main(test_${room})
      target_link_libraries(test_${room} PRIVATE mobula doctest::doctest)
      if(room STREQUAL "node")  # the daemon's room is no part of the library
        target_sources(test_${room} PRIVATE $<TARGET_OBJECTS:mobula_node>)
      endif()
      target_include_directories(test_${room} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
      add_test(NAME unit.${room} COMMAND test_${room})
      set_tests_properties(unit.${room} PROPERTIES TIMEOUT 300)
      mobula_test_environment(unit.${room})
      mobula_sanitize_test(unit.${room} test_${room})
    endif()
  endforeach()
endfunction()

# mobula_add_scenario(NAME [SANITIZE] [SERIAL] [OWN_MAIN] [TIMEOUT seconds]): tests/NAME.cc over real
# processes, as test scenario.NAME of the program scenario_NAME.
#
#   SANITIZE  runs in the asan and tsan builds too
#   SERIAL    never beside another test: it measures time or fills the machine
#   OWN_MAIN  the file has a main() of its own; otherwise doctest's is linked
#   TIMEOUT   seconds until ctest ends it, 120 unless told
function(mobula_add_scenario name)
  cmake_parse_arguments(SCENARIO "SANITIZE;SERIAL;OWN_MAIN" "TIMEOUT" "" ${ARGN})
  if(SCENARIO_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "mobula_add_scenario(${name}): unknown argument ${SCENARIO_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT SCENARIO_TIMEOUT)
    set(SCENARIO_TIMEOUT 120)
  endif()
  set(target scenario_${name})
  add_executable(${target} ${PROJECT_SOURCE_DIR}/tests/${name}.cc)
  mobula_compile_options(${target})
  if(MOBULA_SANITIZE)
    # Compiles in a third of the time; what is tested, the libraries, stays optimized.
    target_compile_options(${target} PRIVATE -O0)
  endif()
  if(NOT SCENARIO_OWN_MAIN)
    mobula_link_doctest_main(${target})
  endif()
  target_link_libraries(${target} PRIVATE mobula doctest::doctest)
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  if(TARGET mobula-node)
    add_dependencies(${target} mobula-node)
  endif()
  add_test(NAME scenario.${name} COMMAND ${target})
  set_tests_properties(scenario.${name} PROPERTIES TIMEOUT ${SCENARIO_TIMEOUT} RUN_SERIAL ${SCENARIO_SERIAL})
  mobula_test_environment(scenario.${name})
  if(SCENARIO_SANITIZE)
    mobula_sanitize_test(scenario.${name} ${target})
  endif()
endfunction()

# mobula_add_coroutine_program(TARGET FILE): FILE uses mobula/coroutine.h. Where g++ is too old for
# that, clang builds this one program; where that is missing too, there is no such target.
function(mobula_add_coroutine_program target file)
  set(includes ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU" OR CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
    add_executable(${target} ${file})
    mobula_compile_options(${target})
    target_link_libraries(${target} PRIVATE mobula doctest::doctest)
    target_include_directories(${target} PRIVATE ${includes})
    add_dependencies(${target} mobula-node)
    return()
  endif()
  find_program(MOBULA_COROUTINE_COMPILER clang++-19)
  if(NOT MOBULA_COROUTINE_COMPILER)
    message(STATUS "${target} is not built: g++ before 13 miscompiles coroutines, and clang++-19 is missing")
    return()
  endif()
  set(program ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}/${target})
  list(TRANSFORM includes PREPEND -I)
  add_custom_command(OUTPUT ${program}
    COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${MOBULA_COROUTINE_COMPILER} -std=c++20 -O1
      -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Werror
      ${includes} -MD -MF ${target}.d -MT ${program} -c ${file} -o ${target}.o
    COMMAND ${MOBULA_COROUTINE_COMPILER} ${target}.o $<TARGET_FILE:mobula> -pthread -o ${program}
    DEPENDS ${file} mobula DEPFILE ${target}.d
    COMMENT "Building ${target} by clang" VERBATIM)
  add_custom_target(${target} ALL DEPENDS ${program})
  add_dependencies(${target} mobula-node)
endfunction()
