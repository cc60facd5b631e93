/* weights.h - the structs that model/weights.def names: the weights of a rank. */
#ifndef TANDEM_WEIGHTS_H
#define TANDEM_WEIGHTS_H

#include "dev/weight.h"
#include "model/weights.def"

#define MATRIX(id, ...) struct weight id;
#define VECTOR(id, ...) struct mat id; /* [1][n], f32; n == 0 when the model has none */
struct shared {
    MODEL_WEIGHTS(MATRIX, VECTOR)
};
struct layer {
    LAYER_WEIGHTS(MATRIX, VECTOR)
};
#undef MATRIX
#undef VECTOR

#endif
