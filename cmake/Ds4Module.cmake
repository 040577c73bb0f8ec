# With DS4_PCH, what most sources include is parsed once: for the modules, and once more with
# GoogleTest for the tests.  For builds that are made from
# nothing and thrown away; the other builds show that every source includes what it uses.
if(DS4_PCH)
  set(common_headers <algorithm> <array> <cstdint> <filesystem> <functional> <memory> <optional> <span>
      <string> <string_view> <unordered_map> <variant> <vector> <fmt/format.h> <nlohmann/json.hpp>)
  foreach(pch ds4_pch ds4_test_pch)
    file(WRITE ${PROJECT_BINARY_DIR}/${pch}.cpp "")
    add_library(${pch} STATIC ${PROJECT_BINARY_DIR}/${pch}.cpp)
    target_link_libraries(${pch} PRIVATE fmt::fmt nlohmann_json::nlohmann_json)
    target_precompile_headers(${pch} PRIVATE ${common_headers})
  endforeach()
  target_link_libraries(ds4_test_pch PRIVATE GTest::gtest GTest::gmock)
  target_precompile_headers(ds4_test_pch PRIVATE <gtest/gtest.h> <gmock/gmock.h>)
endif()

# ds4_module(NAME DEPS mod... SOURCES x.cpp... TESTS x_test.cpp... LINK lib... LABELS label...)
#
# One call a folder under src/: a static library ds4_NAME in namespace ds4::NAME, and, when TESTS
# are named, one GoogleTest program ds4_NAME_test.  DEPS is the whole list of modules that this one
# may include and link; a module that does not exist yet stands on a higher floor, so a cycle
# cannot be written, and tests/tidy reads the same list to check every #include.  LINK names
# libraries from outside the tree.  LABELS are CTest labels (threads, slow, device).  HOT modules are
# optimised in sanitizer builds too.
function(ds4_module name)
  cmake_parse_arguments(M "HOT" "" "DEPS;SOURCES;TESTS;LINK;LABELS" ${ARGN})
  if(M_SOURCES)
    add_library(ds4_${name} STATIC ${M_SOURCES})
    set(kind PUBLIC)
  else()
    add_library(ds4_${name} INTERFACE)
    set(kind INTERFACE)
  endif()
  if(DS4_SANITIZE AND M_HOT)
    target_compile_options(ds4_${name} PRIVATE -O1)
  elseif(DS4_PCH AND M_SOURCES)
    target_precompile_headers(ds4_${name} REUSE_FROM ds4_pch)
  endif()
  target_include_directories(ds4_${name} ${kind} ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/include)
  target_link_libraries(ds4_${name} ${kind} fmt::fmt Threads::Threads ${M_LINK})
  foreach(dep IN LISTS M_DEPS)
    if(NOT TARGET ds4_${dep})
      message(FATAL_ERROR "module '${name}' depends on '${dep}', which stands above it or does not exist")
    endif()
    target_link_libraries(ds4_${name} ${kind} ds4_${dep})
  endforeach()
  if(M_TESTS)
    ds4_test(ds4_${name}_test SOURCES ${M_TESTS} LINK ds4_${name} LABELS ${M_LABELS})
  endif()
  set_property(GLOBAL APPEND_STRING PROPERTY DS4_LAYERS "${name}: ${M_DEPS}\n")
endfunction()

# ds4_test(NAME SOURCES x_test.cpp... LINK lib... LABELS label... ARGS arg...): a GoogleTest program
# registered with CTest, run from the root of the source tree.  All of them carry the label `unit` and
# belong to the target ds4_unit_tests; those labelled `threads` also to ds4_thread_tests.
function(ds4_test name)
  cmake_parse_arguments(T "" "" "SOURCES;LINK;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${T_SOURCES})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})  # for tests/support
  target_link_libraries(${name} PRIVATE ${T_LINK} GTest::gtest GTest::gmock GTest::gtest_main)
  # Test code compiles twice as fast unoptimised; what takes time when it runs is in the libraries.
  target_compile_options(${name} PRIVATE $<$<CONFIG:RelWithDebInfo>:-O0>)
  if(DS4_PCH)
    target_compile_options(${name} PRIVATE -fPIC)  # as the precompiled header
    target_precompile_headers(${name} REUSE_FROM ds4_test_pch)
  endif()
  set(labels unit ${T_LABELS})
  add_test(NAME ${name} COMMAND ${name} ${T_ARGS} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${labels}")
  add_dependencies(ds4_unit_tests ${name})
  if("threads" IN_LIST T_LABELS)
    add_dependencies(ds4_thread_tests ${name})
  endif()
endfunction()

# The source that makes a test program count allocations (tests/support/allocation_count.h).
if(DS4_SANITIZE)
  set(DS4_ALLOCATION_COUNT ${PROJECT_SOURCE_DIR}/tests/support/allocation_count_hook.cpp)
else()
  set(DS4_ALLOCATION_COUNT ${PROJECT_SOURCE_DIR}/tests/support/allocation_count_new.cpp)
endif()

add_custom_target(ds4_unit_tests)
add_custom_target(ds4_thread_tests)

# Writes the layers file that tests/tidy reads: one line a module, "gguf: base;tensor".
function(ds4_write_layers)
  get_property(layers GLOBAL PROPERTY DS4_LAYERS)
  file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/layers.txt CONTENT "${layers}")
endfunction()
