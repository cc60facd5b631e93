/* kern_avx512.c - the kernels for AVX-512 F, BW, DQ, VL: one register of sixteen floats. */
#if defined(__x86_64__)

#include "dev/cpu/vec_avx512.h"

#define KERN_OPS cpu_avx512
#define KERN_NAME "avx512"
#include "dev/cpu/kern.inc"

#endif
