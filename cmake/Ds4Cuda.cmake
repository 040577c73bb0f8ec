# CUDA as a language of the whole tree when DS4_CUDA asks for it and nvcc is there; sets
# DS4_CUDA_ENABLED.  The default architectures cover Ampere to Blackwell, with portable code for what
# comes after; -DCMAKE_CUDA_ARCHITECTURES=90a builds for one card alone.
set(DS4_CUDA_ENABLED OFF)
if(DS4_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 120a-real 121a-real 90-virtual)
    endif()
    enable_language(CUDA)
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # older CMake does not know it of newer nvcc
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    find_package(CUDAToolkit REQUIRED)
    set(DS4_CUDA_ENABLED ON)
    message(STATUS "CUDA backend: nvcc ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
  else()
    message(STATUS "CUDA backend: skipped, no nvcc found (set CUDACXX to name one)")
  endif()
endif()
