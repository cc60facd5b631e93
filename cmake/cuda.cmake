# The CUDA plugin, libtandem-cuda.so: the device of src/dev/cuda, loaded at run time. The program
# neither links nor needs anything of CUDA's; the plugin brings cudart along and asks it for the
# driver, so that it loads where there is none.
set(TANDEM_CUDA AUTO CACHE STRING "build the CUDA plugin: ON, OFF or AUTO (when nvcc is found)")
set(TANDEM_CUDA_ARCHITECTURES "80;86;89;90;100;120" CACHE STRING
    "GPUs the kernels are compiled for, beside portable code of the first; one alone builds faster")

set(TANDEM_CUDA_BUILT OFF)
if(TANDEM_CUDA STREQUAL "OFF" OR TANDEM_SANITIZE MATCHES "thread" OR TANDEM_FUZZ)
  return()
endif()

find_program(NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDACXX} /usr/local/cuda/bin)
find_program(NVCC_HOST NAMES g++)
if(NOT NVCC OR NOT NVCC_HOST)
  if(TANDEM_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TANDEM_CUDA=ON, but nvcc or its host compiler g++ is not found")
  endif()
  message(STATUS "CUDA plugin: skipped: no nvcc (or no g++ for it)")
  return()
endif()

list(GET TANDEM_CUDA_ARCHITECTURES 0 PORTABLE)
set(CMAKE_CUDA_COMPILER ${NVCC} CACHE FILEPATH "")
set(CMAKE_CUDA_HOST_COMPILER ${NVCC_HOST} CACHE FILEPATH "")
set(CMAKE_CUDA_ARCHITECTURES ${TANDEM_CUDA_ARCHITECTURES})
list(TRANSFORM CMAKE_CUDA_ARCHITECTURES APPEND -real)
list(APPEND CMAKE_CUDA_ARCHITECTURES ${PORTABLE}-virtual)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

file(GLOB CUDA_HOST CONFIGURE_DEPENDS src/dev/cuda/*.c src/comm/peer/*.c src/comm/nccl/*.c)
file(GLOB CUDA_KERNELS CONFIGURE_DEPENDS src/dev/cuda/*.cu src/comm/peer/*.cu src/comm/nccl/*.cu)

# Warpgroup instructions are those of compute capability 9.0 alone. For other GPUs these kernels
# have no body and are never launched; but loading all kernels at once wants something for every GPU.
set(WARPGROUP_KERNELS ${CUDA_KERNELS})
list(FILTER WARPGROUP_KERNELS INCLUDE REGEX "_wgmma\\.cu$")
list(FILTER CUDA_KERNELS EXCLUDE REGEX "_wgmma\\.cu$")
add_library(tandem-cuda-90a OBJECT ${WARPGROUP_KERNELS})
if("90" IN_LIST TANDEM_CUDA_ARCHITECTURES)
  set_target_properties(tandem-cuda-90a PROPERTIES CUDA_ARCHITECTURES "90a-real;${PORTABLE}-virtual")
else()
  set_target_properties(tandem-cuda-90a PROPERTIES CUDA_ARCHITECTURES ${PORTABLE}-real)
endif()

add_library(tandem-cuda MODULE ${CUDA_HOST} ${CUDA_KERNELS} $<TARGET_OBJECTS:tandem-cuda-90a>
            src/base/base.c src/base/arena.c
            src/comm/sum.c src/dev/draw.c src/dev/profile.c)
set_target_properties(tandem-cuda PROPERTIES LINKER_LANGUAGE C)
foreach(part tandem-cuda tandem-cuda-90a)
  set_target_properties(${part} PROPERTIES C_VISIBILITY_PRESET hidden CUDA_VISIBILITY_PRESET hidden
                        POSITION_INDEPENDENT_CODE ON CUDA_STANDARD 17)
  target_include_directories(${part} PRIVATE src)
  target_include_directories(${part} SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(${part} PRIVATE _GNU_SOURCE)
  # Row operations give the CPU's bits: what is fused says so.
  target_compile_options(${part} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false -Xcompiler=-Wall,-fno-exceptions>
    $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${TANDEM_WERROR}>>:--Werror=all-warnings>)
endforeach()
target_link_libraries(tandem-cuda PRIVATE CUDA::cudart_static)

# Our prototypes of what is opened at run time are held against the headers, where these are.
foreach(header nccl cublasLt)
  find_path(AGAINST_${header} ${header}.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  if(AGAINST_${header})
    string(TOLOWER against_${header} against)
    add_library(${against} OBJECT test/${against}.c)
    target_include_directories(${against} PRIVATE src)
    target_include_directories(${against} SYSTEM PRIVATE ${AGAINST_${header}} ${CUDAToolkit_INCLUDE_DIRS})
    target_compile_definitions(${against} PRIVATE _GNU_SOURCE)
  endif()
endforeach()

# Tests and benchmarks on a real GPU have the plugin's parts in themselves.
add_library(tandem-cuda-real INTERFACE)
target_link_libraries(tandem-cuda-real INTERFACE $<TARGET_OBJECTS:tandem-cuda>
                      $<TARGET_OBJECTS:tandem-cuda-90a> CUDA::cudart_static stdc++)
if(NOT TANDEM_SANITIZE)
  find_path(CUBLASLT_INCLUDE cublasLt.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  set(BLAS bench/gpu_blas.c)
  if(NOT CUBLASLT_INCLUDE)
    set(BLAS test/no_blas.c)
  endif()
  add_executable(tandem-bench-gpu bench/gpu.c bench/gpu_pair.c bench/gpu_tried.c ${BLAS})
  target_include_directories(tandem-bench-gpu SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(tandem-bench-gpu PRIVATE tandem-core tandem-cuda-real)
  set_target_properties(tandem-bench-gpu PROPERTIES LINKER_LANGUAGE C)
endif()

install(TARGETS tandem-cuda DESTINATION ${CMAKE_INSTALL_LIBDIR}/tandem)
set(TANDEM_CUDA_BUILT ON)
