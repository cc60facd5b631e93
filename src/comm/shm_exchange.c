/* shm_exchange.c - rows to those ranks that need them, and back. See comm.h.
 *
 * A rank reads where the rows are: nothing is packed, and each call is one meeting.
 */
#include "base/whole.h"
#include "comm/shm_inside.h"

static size_t row_bytes(const struct mat *m) { return (size_t)m->dim * num_bytes(m->type); }

static char *row_at(const struct mat *m, int row)
{
    return (char *)m->at + (size_t)row * row_bytes(m);
}

static bool is_in(uint32_t ranks, int rank) { return ranks >> rank & 1; }

void shm_dispatch(struct comm *c, struct mat *m, const uint32_t *need)
{
    const size_t bytes = row_bytes(m);
    size_t read = 0;
    if (!shm_meet(c))
        return;
    uint64_t begin = shm_now_ns();
    for (int i = 1; i < c->size; i++) { /* from the next rank on, so that not all read one rank */
        int r = (c->rank + i) % c->size;
        const char *from = shm_of_peer(c, r, m, mat_bytes(m));
        struct span theirs = share(m->n, c->size, r);
        for (int t = theirs.lo; t < theirs.hi; t++)
            if (is_in(need[t], c->rank)) {
                memcpy(row_at(m, t), from + (size_t)t * bytes, bytes);
                read += bytes;
            }
    }
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, read);
}

/* to = the sum of n rows of so many numbers. */
static void add_rows(int64_t *to, const int64_t *const *row, int n, int dim)
{
    for (int k = 0; k < dim; k++) {
        int64_t sum = row[0][k];
        for (int i = 1; i < n; i++)
            sum = whole_add(sum, row[i][k]);
        to[k] = sum;
    }
}

void shm_combine(struct comm *c, struct mat *to, const struct mat *from, const uint32_t *need)
{
    const struct span mine = share(to->n, c->size, c->rank);
    const int64_t *whole[SHARES_MAX], *row[SHARES_MAX];
    size_t read = 0;
    for (int r = 0; r < c->size; r++)
        whole[r] = shm_of_peer(c, r, from, mat_bytes(from));
    if (!shm_meet(c))
        return;
    uint64_t begin = shm_now_ns();
    for (int t = mine.lo; t < mine.hi; t++) {
        int n = 0;
        for (int r = 0; r < c->size; r++)
            if (is_in(need[t], r))
                row[n++] = whole[r] + (size_t)t * (size_t)from->dim;
        must(n > 0);
        add_rows((int64_t *)(void *)row_at(to, t), row, n, to->dim);
        read += (size_t)(n - is_in(need[t], c->rank)) * row_bytes(from);
    }
    c->move_ns += shm_now_ns() - begin;
    shm_count(c, read);
}
