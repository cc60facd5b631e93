/* gguf_experts.c - a GGUF file has all experts of a layer in one tensor of three dimensions; a
 * Hugging Face folder, and so the rest of this program, has one tensor each. See gguf.h. */
#include "model/gguf.h"

enum { EXPERTS = 4096, TENSORS = 1 << 20 };

static const char number[] = "%d";

/* [experts][rows][columns] under a name with a place for the expert's number. */
static bool of_experts(const struct tensor *t)
{
    return t->n_dim == 3 && strstr(t->name, ".experts.%d.");
}

static struct tensor expert_of(const struct tensor *all, int e, struct pool *pool)
{
    struct tensor one = *all;
    char name[200];
    const char *at = strstr(all->name, number);
    int n = snprintf(name, sizeof(name), "%.*s%d%s", (int)(at - all->name), all->name, e,
                     at + strlen(number));
    must(n > 0 && n < (int)sizeof(name));
    one.name = pool_text(pool, name, (size_t)n);
    one.n_dim = 2;
    one.dim[0] = all->dim[1], one.dim[1] = all->dim[2], one.dim[2] = 0;
    one.bytes = all->bytes / (size_t)all->dim[0];
    one.data = (const char *)all->data + (size_t)e * one.bytes;
    return one;
}

int gguf_split_experts(struct gguf *g, struct pool *pool, struct err *e)
{
    int64_t n = g->n;
    for (int i = 0; i < g->n; i++) {
        const struct tensor *t = &g->t[i];
        if (!of_experts(t))
            continue;
        if (t->dim[0] > EXPERTS || n > TENSORS)
            return err_set(e, -EINVAL, "tensor \"%.80s\" holds an absurd number of experts",
                           t->name);
        n += t->dim[0] - 1;
    }
    if (n == g->n)
        return 0;
    struct tensor *to = pool_get(pool, (size_t)n * sizeof(*to)), *at = to;
    for (int i = 0; i < g->n; i++) {
        const struct tensor *t = &g->t[i];
        int experts = of_experts(t) ? (int)t->dim[0] : 0;
        for (int k = 0; k < experts; k++)
            *at++ = expert_of(t, k, pool);
        if (!experts)
            *at++ = *t;
    }
    g->t = to, g->n = (int)n;
    return 0;
}
