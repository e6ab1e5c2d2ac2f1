# `cmake --install` gives the program, the libraries with the facade header, and a package configuration, so that
# find_package(kvanalyze) and kvanalyze::reports are all that another project needs.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(FILES reports/kvanalyze.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/kvanalyze)
install(FILES reports/report.schema.json DESTINATION ${CMAKE_INSTALL_DATADIR}/kvanalyze)
# Where the installed program looks for them: share/kvanalyze/scripts beside its bin/.
file(GLOB fetch_scripts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/scripts/fetch_*.py)
install(PROGRAMS ${fetch_scripts} DESTINATION ${CMAKE_INSTALL_DATADIR}/kvanalyze/scripts)
install(FILES scripts/models.json scripts/requirements.txt DESTINATION ${CMAKE_INSTALL_DATADIR}/kvanalyze/scripts)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kvanalyze)
install(EXPORT kvanalyze-targets NAMESPACE kvanalyze:: DESTINATION ${package_dir})
configure_package_config_file(cmake/kvanalyze-config.cmake.in ${PROJECT_BINARY_DIR}/kvanalyze-config.cmake
                              INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/kvanalyze-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kvanalyze-config.cmake ${PROJECT_BINARY_DIR}/kvanalyze-config-version.cmake
              cmake/dependencies.cmake
        DESTINATION ${package_dir})
