# What `cmake --install` puts under the prefix, so that a user's CMakeLists is four lines:
#
#   lib/libmobula.a  lib/libmobula.so  include/mobula.h  include/mobula/  bin/mobula
#   bin/mobula-node  lib/cmake/mobula/
#
# `find_package(mobula)` then gives mobula::mobula (C++), mobula::shared (C), mobula::host and
# mobula::plugin (libraries of functions), mobula::ray (Ray's C++ API). The package is relocatable: the prefix may be moved or copied after the
# installation.
include(CMakePackageConfigHelpers)

set(MOBULA_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/mobula)

install(TARGETS mobula mobula_shared mobula_host mobula_plugin mobula_ray EXPORT mobula-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mobula-targets NAMESPACE mobula:: DESTINATION ${MOBULA_CMAKE_DIR})
install(FILES ${PROJECT_SOURCE_DIR}/include/mobula.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/mobula DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.h")

add_custom_target(installed_parts DEPENDS mobula mobula_shared)
foreach(program mobula-node mobula-cli)
  if(TARGET ${program})
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    add_dependencies(installed_parts ${program})
  endif()
endforeach()

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/mobula-config.cmake.in ${PROJECT_BINARY_DIR}/mobula-config.cmake
  INSTALL_DESTINATION ${MOBULA_CMAKE_DIR} NO_SET_AND_CHECK_MACRO)
# Before 1.0 a minor version may break programs: they ask for 0.1 and get 0.1.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/mobula-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mobula-config.cmake
  ${PROJECT_BINARY_DIR}/mobula-config-version.cmake DESTINATION ${MOBULA_CMAKE_DIR})
