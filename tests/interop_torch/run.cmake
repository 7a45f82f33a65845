# Installs the build tree into a prefix, builds the project beside this file against it, and runs it.
cmake_minimum_required(VERSION 3.25)

set(area ${BUILD_DIR}/interop_torch)
function(run title)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output
    TIMEOUT 400)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${title} failed (${status}):\n${output}")
  endif()
endfunction()

run("installing" ${CMAKE_COMMAND} --install ${BUILD_DIR} --prefix ${area}/prefix)
run("configuring" ${CMAKE_COMMAND} -S ${SOURCE_DIR}/tests/interop_torch -B ${area}/build -G Ninja
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_COMPILER=${CXX_COMPILER}
  -DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER} -DCMAKE_PREFIX_PATH=${area}/prefix)
run("building" ${CMAKE_COMMAND} --build ${area}/build)
run("running" ${area}/build/interop_torch)
