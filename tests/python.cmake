# Tests written in Python run with the project's own environment (scripts/common.sh makes it), else with any
# python3; what they need and do not find makes them skip (exit code 77), counted.
set(cache_home $ENV{XDG_CACHE_HOME})
if(NOT cache_home)
  set(cache_home $ENV{HOME}/.cache)
endif()
find_program(KVA_PYTHON python PATHS ${cache_home}/kvanalyze/venv/bin NO_DEFAULT_PATH)
find_program(KVA_PYTHON python3 REQUIRED)

# kva_python_test(NAME SCRIPT LABELS... ARGS...)
function(kva_python_test name script)
  cmake_parse_arguments(arg "" "" "ARGS;LABELS" ${ARGN})
  add_test(NAME ${name} COMMAND ${KVA_PYTHON} ${CMAKE_CURRENT_SOURCE_DIR}/${script} ${arg_ARGS})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 LABELS "${arg_LABELS}"
                       ENVIRONMENT "OMP_WAIT_POLICY=passive;PYTHONDONTWRITEBYTECODE=1")
endfunction()
