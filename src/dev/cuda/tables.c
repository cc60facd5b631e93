/* tables.c - the experts of a layer as kernels find them: a table in the device's memory. */
#include "dev/cuda/cuda.h"
#include "dev/cuda/runtime.h"

/* Parts of rows that follow each other in memory in whole blocks are one. */
static struct gpu_weight merge_parts(struct gpu_weight w)
{
    struct gpu_weight to = w;
    to.n_part = 0;
    for (int i = 0; i < w.n_part; i++) {
        struct gpu_part *before = to.n_part ? &to.part[to.n_part - 1] : NULL;
        const struct gpu_part *next = &w.part[i];
        if (before && before->rows % PACK_ROWS == 0 &&
            (const char *)before->at +
                    (size_t)(before->rows / PACK_ROWS) * pack_block_bytes(w.type, w.cols) ==
                next->at)
            before->rows += next->rows;
        else
            to.part[to.n_part++] = *next;
    }
    return to;
}

static void add_expert(struct cuda_experts *x, struct gpu_weight here[3], const struct expert *e)
{
    here[0] = merge_parts(cuda_weight(&e->gate));
    here[1] = merge_parts(cuda_weight(&e->up));
    here[2] = cuda_weight(&e->down);
    if (!e->gate.n_part)
        return;
    x->type = e->gate.type;
    x->columns = max_int(x->columns, e->gate.rows);
    x->parts = max_int(x->parts, max_int(here[0].n_part, here[1].n_part));
}

/* Fill the table on the device; CUDA's error. */
static int write_table(const struct cuda *c, struct cuda_experts *x, int n)
{
    const size_t bytes = 3 * (size_t)n * sizeof(struct gpu_weight);
    struct gpu_weight *here = malloc(bytes);
    must(here);
    for (int i = 0; i < n; i++)
        add_expert(x, here + 3 * i, &x->of[i]);
    int rc = gpu_copy_in(x->table, here, bytes, c->stream);
    rc = rc ? rc : gpu_wait(c->stream);
    free(here);
    return rc;
}

static struct cuda_experts *find(const struct cuda *c, const struct expert *expert)
{
    struct cuda_experts *x = c->experts;
    while (x && x->of != expert)
        x = x->next;
    return x;
}

const struct cuda_experts *cuda_experts(struct dev *d, const struct expert *expert, int n)
{
    struct cuda *c = cuda_of(d);
    struct cuda_experts *x = find(c, expert);
    if (x)
        return x;
    x = pool_get(&c->pool, sizeof(*x));
    *x = (struct cuda_experts){.of = expert, .parts = 1, .next = c->experts};
    cuda_note(d, gpu_alloc(&x->table, 3 * (size_t)n * sizeof(struct gpu_weight)));
    if (!d->err)
        cuda_note(d, write_table(c, x, n));
    if (d->err)
        x->table = NULL;
    return c->experts = x;
}

int cuda_moved(struct dev *d, const struct expert *expert, int n, struct err *e)
{
    const struct cuda *c = cuda_of(d);
    struct cuda_experts *x = find(c, expert);
    if (!x || !x->table)
        return 0; /* the first step makes it */
    const struct cuda_experts before = *x;
    int rc = write_table(c, x, n);
    must(x->columns == before.columns && x->parts == before.parts); /* recordings have them */
    return rc ? err_set(e, -EIO, "GPU %d: cannot say where experts are: %s", c->ask.gpu,
                        gpu_error(rc))
              : 0;
}
