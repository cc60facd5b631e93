/* packed.h - packed weights in a file, as `tandem pack` writes them: mapped, not loaded.
 *
 * weights.tandem is a header and then, from a multiple of 2 MiB on, byte for byte what
 * weights_lay_out() places for PLAN_WHOLE. It serves every layout with the same number of shares.
 * Numbers are little endian:
 *
 *     char magic[8] "TANDEMW2"; u64 header bytes; u64 layout; u64 data begins; u64 data bytes;
 *     u64 shares; char format[16] by its name; u64 checksum[blocks of 16 MiB]; u64 checksum of all
 * before
 *
 * Checksums are XXH3-64. `layout` is plan_weights_hash(): it differs when the model's shape, the
 * format or the shares differ, so a file of another model is refused. Another packing gets another
 * magic.
 */
#ifndef TANDEM_PACKED_H
#define TANDEM_PACKED_H

#include "plan/plan.h"

#include <stdatomic.h>

#define PACKED_FILE "weights.tandem"

struct packed {
    int fd;
    size_t begin, bytes; /* of the data in the file */
    enum num weight;
    int shares;
    uint64_t layout;
    uint64_t *sum; /* [blocks]; malloc'd */
};

/* Read and check the header in the folder. -ENOENT when the folder has no packed weights; any other
 * error is one sentence with the file's name. Free with packed_close(). */
int packed_open(const char *folder, struct packed **out, struct err *e);
/* The same from bytes in memory, for the fuzz target; fd is -1. */
int packed_parse(const void *bytes, size_t n, size_t file_bytes, struct packed *to, struct err *e);
void packed_close(struct packed *f);

/* Refuse a plan that these weights are not packed for. */
int packed_check(const struct packed *f, const struct plan *p, struct err *e);

/* Map the data, read-only, and compare all checksums with n_thread threads; *done counts bytes.
 * The mapping is the caller's, to be unmapped with f->bytes. */
int packed_map(const struct packed *f, int n_thread, _Atomic uint64_t *done, char **to,
               struct err *e);

/* Write the file into the folder, under another name first. data: what the plan's PLAN_WHOLE
 * layout holds. */
int packed_write(const char *folder, const struct plan *p, const char *data, size_t bytes,
                 struct err *e);

#endif
