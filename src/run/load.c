/* load.c - see load.h. Each part is one job; threads take the next job until none is left. */
#include "run/load.h"

#include <pthread.h>
#include <stdatomic.h>

struct job {
    const char *name;        /* of the tensor, the store's */
    const struct part *part; /* NULL: a vector */
    enum num type;           /* that it is packed as */
    struct mat vector;
    struct stored src;
    size_t bytes;
};

struct load {
    const struct plan *p;
    const struct weights *whole;
    const struct store *store;
    struct pool *pool;
    struct job *job;
    size_t n_job, room, bytes;
    _Atomic size_t next;
    _Atomic size_t bad; /* 1 + the number of a job that failed */
    _Atomic uint64_t *done;
    struct err *err;
    int rc;
};

static struct job *new_job(struct load *l)
{
    if (l->n_job == l->room) {
        struct job *old = l->job;
        l->room = l->room ? 2 * l->room : 1024;
        l->job = pool_get(l->pool, l->room * sizeof(*l->job));
        if (old)
            memcpy(l->job, old, l->n_job * sizeof(*old));
    }
    return &l->job[l->n_job++];
}

static void add_matrix(struct load *l, const struct piece *pc, const struct tensor *t,
                       const struct weight *w)
{
    for (int i = 0; i < w->n_part; i++) {
        struct span s = plan_part(l->p, pc, i);
        bool cols = pc->cut == CUT_COLS;
        size_t numbers = (size_t)w->part[i].rows * (size_t)w->part[i].cols;
        *new_job(l) = (struct job){.name = t->name,
                                   .part = &w->part[i],
                                   .type = w->type,
                                   .src = {.at = t->data,
                                           .type = t->type,
                                           .stride = (size_t)pc->cols,
                                           .row = cols ? 0 : s.lo,
                                           .col = cols ? s.lo : 0,
                                           .pairs = t->pairs,
                                           .scales = t->scales},
                                   .bytes = tensor_bytes(t->type, numbers)};
    }
}

static void add_piece(void *arg, const struct piece *pc)
{
    struct load *l = arg;
    struct tensor t;
    if (l->rc)
        return;
    l->rc = store_find(l->store, pc->name, pc->matrix ? pc->rows : pc->cols,
                       pc->matrix ? pc->cols : 1, &t, l->err);
    if (l->rc)
        return;
    l->bytes += t.bytes;
    if (pc->matrix)
        add_matrix(l, pc, &t, weights_field(l->whole, pc));
    else
        *new_job(l) = (struct job){.name = t.name,
                                   .vector = *(const struct mat *)weights_field(l->whole, pc),
                                   .src = {.at = t.data, .type = t.type, .pairs = t.pairs},
                                   .bytes = t.bytes};
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Of a layer, as folders and GGUF files call it; frequencies of angles are known without. */
static bool of_layer(const char *name)
{
    return (!strncmp(name, "model.layers.", 13) || !strncmp(name, "blk.", 4)) &&
           !strstr(name, "rotary_emb.inv_freq") && !strstr(name, "attn_rot_embd");
}

/* What stands beside a matrix of e4m3: its scales, and those that others round activations by. */
static bool beside_fp8(const struct store *s, const char *name)
{
    static const char *const suffix[] = {"weight_scale_inv", "weight_scale", "input_scale",
                                         "output_scale"};
    char matrix[512];
    for (size_t i = 0; i < COUNT(suffix); i++) {
        const int n = (int)strlen(name) - (int)strlen(suffix[i]);
        if (n <= 0 || n > (int)sizeof(matrix) - 8 || strcmp(name + n, suffix[i]) != 0)
            continue;
        snprintf(matrix, sizeof(matrix), "%.*sweight", n, name);
        const struct tensor *t = store_named(s, matrix);
        if (t && t->type == NUM_FP8)
            return true;
    }
    return false;
}

/* A tensor that the model has no place for would change nothing in silence, and its answers would
 * be others than were meant. */
static int refuse_others(const struct load *l)
{
    const char **name = pool_get(l->pool, (l->n_job + 1) * sizeof(*name));
    for (size_t i = 0; i < l->n_job; i++)
        name[i] = l->job[i].name;
    if (l->n_job)
        qsort(name, l->n_job, sizeof(*name), by_name);
    for (int i = 0; i < store_count(l->store); i++) {
        const char *one = store_at(l->store, i)->name;
        if (of_layer(one) && !beside_fp8(l->store, one) &&
            !bsearch(&one, name, l->n_job, sizeof(*name), by_name))
            return err_set(l->err, -EINVAL,
                           "tensor \"%.80s\" has no place in the model that config.json describes: "
                           "take the config.json that belongs to these weights; parts that are not "
                           "supported cannot be left out",
                           one);
    }
    return 0;
}

int load_list(struct load **out, const struct plan *p, const struct weights *whole,
              const struct store *s, struct pool *pool, struct err *e)
{
    struct load *l = pool_get(pool, sizeof(*l));
    l->p = p, l->whole = whole, l->store = s, l->pool = pool, l->err = e;
    plan_pieces(p, PLAN_WHOLE, add_piece, l);
    *out = l;
    return l->rc ? l->rc : refuse_others(l);
}

size_t load_bytes(const struct load *l) { return l->bytes; }

static void load_vector(const struct job *j)
{
    struct stored one = j->src; /* a vector is rows of one number */
    one.stride = 1;
    for (int i = 0; i < j->vector.dim; i++)
        stored_read(&one, i, 0, 1, (float *)j->vector.at + i);
}

static void *work(void *arg)
{
    struct load *l = arg;
    for (;;) {
        size_t i = atomic_fetch_add(&l->next, 1);
        if (i >= l->n_job)
            return NULL;
        const struct job *j = &l->job[i];
        if (j->part && part_pack(j->part, j->type, &j->src))
            atomic_store(&l->bad, i + 1);
        else if (!j->part)
            load_vector(j);
        atomic_fetch_add(l->done, j->bytes);
    }
}

int load_all(struct load *l, int n_thread, _Atomic uint64_t *done, struct err *e)
{
    enum { THREADS = 64 };
    pthread_t thread[THREADS];
    int started = 0;
    l->done = done;
    while (started < min_int(n_thread - 1, THREADS) &&
           !pthread_create(&thread[started], NULL, work, l))
        started++;
    work(l);
    while (started > 0)
        pthread_join(thread[--started], NULL);
    size_t bad = atomic_load(&l->bad);
    if (!bad)
        return 0;
    return err_set(e, -EDOM,
                   "tensor \"%.80s\" holds numbers that are infinite, none, or too large for %s: "
                   "repair the file or choose --dtype f32",
                   l->job[bad - 1].name, num_name(l->job[bad - 1].type));
}
