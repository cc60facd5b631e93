/* make.h - writing a model folder with random weights: for measuring and for tests. */
#ifndef TANDEM_MAKE_H
#define TANDEM_MAKE_H

#include "base/mat.h"
#include "model/model.h"

/* Called for every tensor of a model; a vector has cols == 1. */
typedef void make_tensor_fn(void *arg, const char *name, int rows, int cols);

struct make {
    const char *name;   /* a known shape (folder.h), or the path of a config.json */
    const char *folder; /* made; must not exist or be empty unless replace */
    uint64_t seed;
    enum num type;
    bool replace;
    int threads;        /* that write; 0: one per core */
    size_t shard_bytes; /* most data in one file; 0: 4 GB */
    /* Lists the tensors of the model: the caller knows the weight table. */
    int (*tensors)(const struct model *m, make_tensor_fn *fn, void *arg, struct err *e);
    void (*progress)(void *arg, size_t done, size_t all); /* or NULL */
    void *arg;
};

/* Writes config.json, generation_config.json, tokenizer.json, tokenizer_config.json and the
 * weights, in shards with an index when they are large. The same seed gives the same numbers.
 * Refuses in one sentence, with the size needed, when the disk lacks room; what was begun is
 * removed on failure. */
int make_model(const struct make *make, struct err *e);

#endif
