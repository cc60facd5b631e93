/* amx_model.h - the tile instructions in software: the words of dev/cpu/amx.h for machines without
 * them. Every thread has its own tiles. What would fault on a real machine stops the program. */
#ifndef TANDEM_AMX_MODEL_H
#define TANDEM_AMX_MODEL_H

#include <stddef.h>

void amx_configure(const void *at);
void amx_release(void);
void amx_zero(int tile);
void amx_load(int tile, const void *at, size_t stride);
void amx_store(int tile, void *at, size_t stride);
void amx_dot(int sum, int a, int b);

/* How many amx_dot() this thread has made. */
long amx_dots(void);

#endif
