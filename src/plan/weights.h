/* weights.h - the structs that model/weights.def names: the weights of a rank. */
#ifndef TANDEM_WEIGHTS_H
#define TANDEM_WEIGHTS_H

#include "dev/weight.h"
#include "model/weights.def"

#define MATRIX(id, ...) struct weight id; /* n_part == 0 when the model has none */
#define VECTOR(id, ...) struct mat id;    /* [1][n], f32; n == 0 when the model has none */
struct shared {
    MODEL_WEIGHTS(MATRIX, MATRIX, VECTOR)
};
struct layer {
    LAYER_WEIGHTS(MATRIX, MATRIX, VECTOR)
    struct expert *expert; /* [model_experts()]; NULL in a layer without */
};
#undef MATRIX
#undef VECTOR

#endif
