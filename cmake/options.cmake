# Language level, warnings and sanitizers, as one interface target that every target of ours links.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

add_library(kva_options INTERFACE)
target_compile_options(kva_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wno-missing-field-initializers>
  $<$<AND:$<BOOL:${KVANALYZE_WERROR}>,$<COMPILE_LANGUAGE:CXX>>:-Werror>
  $<$<AND:$<BOOL:${KVANALYZE_WERROR}>,$<COMPILE_LANGUAGE:CUDA>>:-Werror=all-warnings>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # gcc 12 warns of overlapping copies inside std::string itself (gcc bug 105651).
  target_compile_options(kva_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(KVANALYZE_SANITIZE)
  target_compile_options(kva_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g1>)
  target_link_options(kva_options INTERFACE -fsanitize=address,undefined)
  # gcc takes many minutes for instrumented SIMD code of every instruction set; the baseline's is the same source.
  target_compile_definitions(kva_options INTERFACE HWY_COMPILE_ONLY_STATIC)
endif()
if(KVANALYZE_FUZZ)
  target_compile_options(kva_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all>)
  target_link_options(kva_options INTERFACE -fsanitize=address,undefined)
endif()

# kva_library(NAME LINKS...): a static library of ours, named after its folder.
function(kva_library name)
  add_library(kva_${name} STATIC)
  add_library(kvanalyze::${name} ALIAS kva_${name})
  set_target_properties(kva_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(kva_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:include/kvanalyze>)
  target_link_libraries(kva_${name} PRIVATE $<BUILD_INTERFACE:kva_options> PUBLIC ${ARGN})
  # The GPU's kernels are installed as a module that is loaded when a device is opened (kernels/CMakeLists.txt): linked,
  # they would make every user need CUDA.
  if(NOT name STREQUAL "cuda")
    install(TARGETS kva_${name} EXPORT kvanalyze-targets)
  endif()
endfunction()
