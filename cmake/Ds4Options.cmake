# Compiler options of every target of the tree.
find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

set(DS4_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
    -Wcast-qual -Wimplicit-fallthrough -Wextra-semi)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:${DS4_WARNINGS}>"
                    "$<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wpedantic>")
if(DS4_WERROR)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX,C>:-Werror>")
endif()
if(DS4_DCHECK)
  add_compile_definitions(DS4_DCHECK_ENABLED=1)
endif()

# Release keeps assertions of our own (DS4_CHECK) and drops <cassert>.
set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
# A sanitizer build is compiled quickly rather than well, but for the modules whose loops the tests
# spend their time in (HOT in ds4_module()); one for long fuzzing asks for more.
if(DS4_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "${DS4_SANITIZE_OPTIMIZE} -g1")
else()
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
endif()

# Some sixty test programs are linked from static libraries with symbols: the LLVM linker does in a
# fraction of a second what takes the default one several.
find_program(DS4_LLD ld.lld)
if(DS4_LLD AND CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
  add_link_options(-fuse-ld=lld)
endif()

if(DS4_SANITIZE)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX,C>:-fsanitize=${DS4_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  add_link_options(-fsanitize=${DS4_SANITIZE})
endif()
if(DS4_FUZZ)
  add_compile_options("$<$<COMPILE_LANGUAGE:CXX,C>:-fsanitize=fuzzer-no-link>")
endif()
