/* num.h - the names of number formats, for C and CUDA alike. What they are: base/mat.h. */
#ifndef TANDEM_NUM_H
#define TANDEM_NUM_H

/* The formats from NUM_INT8 on are for weights only, in groups of columns: whole numbers with a
 * scale (f16) per row and group, and perhaps the number that 0 stands for; or e4m3. A KV cache of
 * NUM_INT8 has scales of its own: dev/kv.h. */
enum num {
    NUM_F32,
    NUM_F16,
    NUM_BF16,
    NUM_I32,
    NUM_I64,       /* sums in fixed point: base/whole.h */
    NUM_INT8,      /* groups of 128 */
    NUM_INT4,      /* groups of 64 */
    NUM_INT8_G32,  /* what GGUF calls Q8_0 */
    NUM_INT4_G32,  /* Q4_0 */
    NUM_INT4_G32Z, /* Q4_1: with the least number of the group */
    NUM_INT4_G128,
    NUM_FP8, /* e4m3 without infinities, a scale (f32) per row and group of 128 */
    NUM_COUNT
};

#endif
