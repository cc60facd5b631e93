/* load.h - from the tensors of a model folder to packed parts in memory. */
#ifndef TANDEM_LOAD_H
#define TANDEM_LOAD_H

#include "model/store.h"
#include "run/weights.h"

struct load; /* the list of what to pack where */

/* Find every tensor of the plan's model in the store and check its shape; nothing is read yet.
 * `whole` was laid out for PLAN_WHOLE. The list lives in pool. -ENOENT, or -EINVAL also for a
 * tensor of a layer that the model does not have. */
int load_list(struct load **out, const struct plan *p, const struct weights *whole,
              const struct store *s, struct pool *pool, struct err *e);

/* Pack everything with n_thread threads (the caller is one of them). *done counts source bytes and
 * may be watched from another process or thread. Returns when all threads have ended; -EDOM with
 * the tensor's name when one holds what its new format cannot. */
int load_all(struct load *l, int n_thread, _Atomic uint64_t *done, struct err *e);

size_t load_bytes(const struct load *l); /* of all sources */

#endif
