/* kern_avx512bf16.c - as kern_avx512.c, but products with bf16 weights use the bf16 dot
 * instruction: x is rounded to bf16, so they give other bits. Those with whole numbers use the
 * tiles of AMX if the device says so. */
#if defined(__x86_64__)

#include "dev/cpu/amx.h"
#include "dev/cpu/vec_avx512.h"

#define KERN_OPS cpu_avx512bf16
#define KERN_NAME "avx512-bf16"
#define KERN_DOT
#define KERN_AMX
#include "dev/cpu/kern.inc"

#endif
