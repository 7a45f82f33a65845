# A stranger's project finds an installed Mobula, builds and runs.
#
# Installs the build tree into a prefix, moves that prefix (the package must not remember where
# it was installed first), then configures, builds and runs the project beside this file, once
# with the program that README.md shows and once with the quickstart; then one that uses the other
# targets of the package.
cmake_minimum_required(VERSION 3.25)

set(area ${BUILD_DIR}/install_test)
set(prefix ${area}/prefix)
file(REMOVE_RECURSE ${area})

function(run title)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output
    TIMEOUT 120)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${title} failed (${status}): ${command}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run("installing" ${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${area}/staging)
file(RENAME ${area}/staging ${prefix})

foreach(part ${LIBDIR}/libmobula.a ${LIBDIR}/libmobula.so include/mobula.h include/mobula/mobula.h
    include/mobula/compat/ray/api.h bin/mobula bin/mobula-node
    ${LIBDIR}/cmake/mobula/mobula-config.cmake ${LIBDIR}/cmake/mobula/mobula-config-version.cmake)
  if(NOT EXISTS ${prefix}/${part})
    message(FATAL_ERROR "the installation lacks ${part}")
  endif()
endforeach()

file(GLOB package_files ${prefix}/${LIBDIR}/cmake/mobula/*.cmake)
foreach(file ${package_files})
  file(READ ${file} text)
  foreach(path ${SOURCE_DIR} ${area}/staging)
    string(FIND "${text}" "${path}" position)
    if(NOT position EQUAL -1)
      message(FATAL_ERROR "${file} remembers ${path}: the package cannot be moved")
    endif()
  endforeach()
endforeach()

# The first block of C++ in README.md.
file(READ ${SOURCE_DIR}/README.md text)
string(FIND "${text}" "```cpp\n" start)
if(start EQUAL -1)
  message(FATAL_ERROR "README.md shows no C++ program")
endif()
math(EXPR start "${start} + 7")
string(SUBSTRING "${text}" ${start} -1 text)
string(FIND "${text}" "\n```" end)
string(SUBSTRING "${text}" 0 ${end} text)
file(WRITE ${area}/README.cc "${text}\n")

# The daemon is found in PATH, as after an installation into a prefix of the user's own.
set(ENV{PATH} "${prefix}/bin:$ENV{PATH}")
foreach(program ${area}/README.cc ${SOURCE_DIR}/examples/quickstart/quickstart.cc)
  cmake_path(GET program STEM name)
  set(project ${area}/${name})
  file(COPY ${SOURCE_DIR}/tests/install/user/ DESTINATION ${project})
  configure_file(${program} ${project}/hello.cc COPYONLY)
  run("configuring for ${name}" ${CMAKE_COMMAND} -S ${project} -B ${project}/build -G Ninja
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER=${CXX_COMPILER} -DCMAKE_PREFIX_PATH=${prefix})
  run("building ${name}" ${CMAKE_COMMAND} --build ${project}/build)
  run("running ${name}" ${project}/build/hello)
  if(output STREQUAL "")
    message(FATAL_ERROR "${name} ran but said nothing")
  endif()
  message(STATUS "${name} says:\n${output}")
endforeach()

set(project ${area}/interop)
file(COPY ${SOURCE_DIR}/tests/install/interop/ ${SOURCE_DIR}/tests/plugins/arithmetic.cc
  ${SOURCE_DIR}/docs/snippets/from_c.c ${SOURCE_DIR}/docs/snippets/ray_program.cc
  DESTINATION ${project})
run("configuring for interop" ${CMAKE_COMMAND} -S ${project} -B ${project}/build -G Ninja
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=${CXX_COMPILER} -DCMAKE_PREFIX_PATH=${prefix})
run("building interop" ${CMAKE_COMMAND} --build ${project}/build)
foreach(program loads_library from_c ray_program)
  run("running ${program}" ${project}/build/${program})
endforeach()
