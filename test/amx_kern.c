/* amx_kern.c - the kernels with tiles on the model of amx_model.h, for every machine with AVX2. */
#include "amx_model.h"

#include "dev/cpu/vec_avx2.h"
#include "dev/dev.h"

#define KERN_OPS amx_avx2
#define KERN_NAME "amx-model"
#define KERN_AMX
extern const struct dev_ops KERN_OPS;
#include "dev/cpu/kern.inc"
