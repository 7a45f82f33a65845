# Tests about the tree itself: where its includes point, whether each public header stands
# alone, and whether an installed Mobula serves a stranger's project.
if(NOT MOBULA_TESTS)
  return()
endif()

# Where includes point.
add_executable(test_layers ${PROJECT_SOURCE_DIR}/tests/layers_test.cc)
mobula_compile_options(test_layers)
mobula_link_doctest_main(test_layers)
target_compile_definitions(test_layers PRIVATE MOBULA_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
add_test(NAME repository.layers COMMAND test_layers)
set_tests_properties(repository.layers PROPERTIES TIMEOUT 60)

# Each public header compiles when it is the only include, by whichever compiler builds this tree.
file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR}/include
  ${PROJECT_SOURCE_DIR}/include/mobula/*.h)
# Those for a library are compiled by the tests that have it.
list(FILTER headers EXCLUDE REGEX "mobula/interop/(eigen|torch)\\.h$")
set(header_sources)
foreach(header ${headers})
  string(REPLACE "/" "_" file ${header})
  set(source ${PROJECT_BINARY_DIR}/public_headers/${file}.cc)
  file(CONFIGURE OUTPUT ${source} CONTENT "#include <${header}>\n")
  list(APPEND header_sources ${source})
endforeach()
if(header_sources)
  add_library(public_headers OBJECT ${header_sources})
  mobula_compile_options(public_headers)
  target_include_directories(public_headers PRIVATE ${PROJECT_SOURCE_DIR}/include)
endif()

# A stranger's project. It would have to link the sanitizer too, so plain builds only.
if(NOT MOBULA_SANITIZE)
  add_test(NAME repository.install COMMAND ${CMAKE_COMMAND}
    -DSOURCE_DIR=${PROJECT_SOURCE_DIR} -DBUILD_DIR=${PROJECT_BINARY_DIR}
    -DCXX_COMPILER=${CMAKE_CXX_COMPILER} -DLIBDIR=${CMAKE_INSTALL_LIBDIR}
    -P ${PROJECT_SOURCE_DIR}/tests/install/install_test.cmake)
  set_tests_properties(repository.install PROPERTIES TIMEOUT 300)
endif()

# The API reference is made without a warning.
find_program(DOXYGEN doxygen)
if(DOXYGEN AND NOT MOBULA_SANITIZE)
  add_test(NAME repository.reference COMMAND ${PROJECT_SOURCE_DIR}/docs/reference/check
    ${DOXYGEN} ${PROJECT_BINARY_DIR}/reference)
  set_tests_properties(repository.reference PROPERTIES TIMEOUT 120)
endif()
