/* safetensors.h - the header of one safetensors file, checked. Private to model/. */
#ifndef TANDEM_SAFETENSORS_H
#define TANDEM_SAFETENSORS_H

#include "base/arena.h"
#include "model/store.h"

/* Tensors of types that no kernel knows keep this type; store_find refuses them by name. */
enum { TYPE_OTHER = NUM_COUNT };

/* Parse the file's bytes (untrusted): 8 bytes of header length, a JSON header, data. Appends to
 * *list (grown in pool); names are copied. Every tensor's range lies inside the file, has the size
 * its shape says, and no two overlap; there are no gaps. */
int safetensors_parse(const void *bytes, size_t n, const char *what, struct pool *pool,
                      struct tensor **list, int *count, struct err *e);

#endif
