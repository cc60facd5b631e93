/* make_weights.h - random tensors into safetensors files. Private to model/; see make.h. */
#ifndef TANDEM_MAKE_WEIGHTS_H
#define TANDEM_MAKE_WEIGHTS_H

#include "base/arena.h"
#include "model/make.h"

struct tensor_entry {
    char name[96];
    int rows, cols;
    uint64_t first; /* its first number, counted through all tensors */
    int shard;
    size_t at; /* byte in the data of its shard */
};

struct tensor_list {
    struct tensor_entry *at;
    int n, room, n_shard;
    uint64_t numbers;
    size_t bytes; /* of all data */
};

/* Add a tensor of numbers of `size` bytes; a shard ends before it would exceed shard_bytes. */
void tensor_add(struct tensor_list *l, struct pool *pool, const char *name, int rows, int cols,
                size_t size, size_t shard_bytes);

/* The name of shard i in the folder: model.safetensors when it is alone. */
void shard_name(char to[64], const struct tensor_list *l, int i);

/* Write all shards, and their index when there are several. What was begun is removed on failure.
 */
int weights_write(const struct make *m, const struct tensor_list *l, struct err *e);

#endif
