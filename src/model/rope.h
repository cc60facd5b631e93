/* rope.h - rotary position angles, every scaling. The one place where the formulas stand. */
#ifndef TANDEM_ROPE_H
#define TANDEM_ROPE_H

#include "base/mat.h"
#include "model/model.h"

/* angle[n][head_dim]: for row i the cosines, then the sines, of pos[i] times each of head_dim/2
 * frequencies (Su et al. 2021), scaled as the model asks:
 *   linear   positions divided by factor (Chen et al. 2023)
 *   dynamic  a larger base beyond the trained length (NTK-aware); each position is rotated as if
 *            it were the last, so that the result does not depend on chunks or neighbours
 *   llama3   low frequencies divided by factor, a smooth passage (Llama 3.1)
 *   yarn     frequencies mixed between both, cos and sin times `attention` (Peng et al. 2023)
 * A mat without memory is left alone. */
void rope_angles(struct mat *angle, const struct rope *r, const int *pos);

#endif
