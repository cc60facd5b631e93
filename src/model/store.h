/* store.h - the tensors of a model folder, mapped into memory.
 *
 * One safetensors file or shards with model.safetensors.index.json. Headers are untrusted: every
 * offset is checked before a byte is touched. Nothing is copied; the mapping lives until
 * store_close().
 */
#ifndef TANDEM_STORE_H
#define TANDEM_STORE_H

#include "base/mat.h"

struct store;

struct tensor {
    const char *name;   /* owned by the store, as data is */
    enum num type;      /* NUM_I32: of a kind that is not read */
    const char *format; /* what a GGUF file calls it; NULL: from safetensors */
    int n_dim;
    int64_t dim[4];
    const void *data; /* dense, little endian, may be unaligned; whole numbers: in groups of 32 */
    size_t bytes;
    int pairs; /* rows of each head of so many are interleaved (struct stored in dev/weight.h) */
    struct scales scales; /* of e4m3: from store_find() alone */
};

/* Bytes of so many numbers of a row. */
static inline size_t tensor_bytes(enum num type, size_t numbers)
{
    struct quant q = num_quant(type);
    if (type == NUM_FP8)
        return numbers;
    return q.bits ? numbers / (size_t)q.group * ((q.least ? 4 : 2) + (size_t)(q.group * q.bits) / 8)
                  : numbers * num_bytes(type);
}

/* Open all shards of a folder, or a GGUF file. A missing shard, a truncated or overlapping or
 * otherwise malformed file is one sentence naming the file. Tensors of other types are kept by name
 * and refused on store_find. */
int store_open(const char *folder, struct store **out, struct err *e);
/* One file from bytes in memory (not copied, must outlive the store): for tests and fuzzing. */
int store_open_bytes(const void *bytes, size_t n, const char *what, struct store **out,
                     struct err *e);
void store_close(struct store *s);

/* The tensor of that name with the shape [rows, cols] ([rows] when cols is 1 is accepted for a
 * vector, in either order). One of e4m3 has scales in a tensor of its own, called as it is with
 * _scale_inv or _scale behind: one for all, one for each row, or one for each 128 x 128 numbers.
 * -ENOENT or -EINVAL with the shapes in e. */
int store_find(const struct store *s, const char *name, int rows, int cols, struct tensor *t,
               struct err *e);

/* The tensor of that name, whatever its shape and type; NULL: there is none. */
const struct tensor *store_named(const struct store *s, const char *name);

int store_count(const struct store *s);
const struct tensor *store_at(const struct store *s, int i); /* sorted by name */
size_t store_bytes(const struct store *s);                   /* of all files */

#endif
