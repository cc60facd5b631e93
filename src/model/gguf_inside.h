/* gguf_inside.h - what the files that read a GGUF file's metadata share. See gguf.h. */
#ifndef TANDEM_GGUF_INSIDE_H
#define TANDEM_GGUF_INSIDE_H

#include "model/gguf.h"

#include <jansson.h>

/* The text of o, in the pool, and o is given up; NULL when o is NULL or holds what is no JSON. */
char *gguf_json(json_t *o, struct pool *pool);

/* The config.json that the metadata amounts to, in the pool. */
int gguf_config_of(const struct gguf *g, struct pool *pool, char **to, struct err *e);

#endif
