/* check.h - numbers for trials of a GPU: check.c. */
#ifndef TANDEM_CUDA_CHECK_H
#define TANDEM_CUDA_CHECK_H

#include <stdint.h>

/* A bf16 number: any sign, an exponent around 1 by up to `range`, now and then a zero or a number
 * that is subnormal. */
uint16_t check_bf16(uint64_t *seed, int range);

#endif
