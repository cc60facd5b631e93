/* amx.h - the tile instructions of x86-64 (AMX-TILE, AMX-INT8) as words that amx.inc is written in.
 *
 * Eight tiles 0 .. 7, each of up to 16 rows of up to 64 bytes. A tile's number must be a literal.
 * The words are assembly, because the compiler's own (gcc 12) do not say that a load reads memory,
 * nor that a configuration is 64 bytes long: stores before them may be dropped.
 * test/amx_model.h has the same words in software.
 */
#ifndef TANDEM_AMX_H
#define TANDEM_AMX_H

#include <stddef.h>

/* The shapes of all tiles, 64 bytes; every tile becomes zero. */
#define amx_configure(at) __asm__ volatile("ldtilecfg %0" : : "m"(*(const char(*)[64])(at)))

/* No tiles any more: a switch of threads saves nothing of them. */
#define amx_release() __asm__ volatile("tilerelease")

#define amx_zero(tile) __asm__ volatile("tilezero %%tmm" #tile : :)

/* The rows of a tile stand `stride` bytes apart. */
#define amx_load(tile, at, stride)                                                                 \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile                                            \
                     :                                                                             \
                     : "r"(at), "r"((size_t)(stride))                                              \
                     : "memory")
#define amx_store(tile, at, stride)                                                                \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)"                                        \
                     :                                                                             \
                     : "r"(at), "r"((size_t)(stride))                                              \
                     : "memory")

/* sum[m][n] += the products of bytes 4k .. 4k + 3 of row m of a, with sign, and bytes 4n .. 4n + 3
 * of row k of b, without, over all k; exactly. */
#define amx_dot(sum, a, b) __asm__ volatile("tdpbsud %%tmm" #b ", %%tmm" #a ", %%tmm" #sum : :)

#endif
