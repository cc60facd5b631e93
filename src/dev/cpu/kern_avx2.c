/* kern_avx2.c - the kernels for AVX2, FMA and F16C: two registers of eight floats. */
#if defined(__x86_64__)

#include "dev/cpu/vec_avx2.h"

#define KERN_OPS cpu_avx2
#define KERN_NAME "avx2"
#include "dev/cpu/kern.inc"

#endif
