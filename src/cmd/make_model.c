/* make_model.c - `tandem make-model`: a thin wrapper that lends model/make.h the list of tensors,
 * which the plan knows. */
#include "cmd/cmd.h"
#include "dev/dev.h"
#include "model/make.h"
#include "plan/plan.h"

#include <unistd.h>

/* Passes pieces of a plan on as tensors. */
struct relay {
    make_tensor_fn *fn;
    void *arg;
};

static void relay_piece(void *arg, const struct piece *pc)
{
    struct relay *to = arg;
    to->fn(to->arg, pc->name, pc->matrix ? pc->rows : pc->cols, pc->matrix ? pc->cols : 1);
}

static int list_tensors(const struct model *m, make_tensor_fn *fn, void *arg, struct err *e)
{
    struct plan whole;
    struct plan_ask ask = {.weight = NUM_F32, .kv = NUM_F32, .numerics = "f32-fma"};
    int rc = plan_make(&whole, m, &ask, e);
    if (!rc)
        plan_pieces(&whole, PLAN_WHOLE, relay_piece, &(struct relay){fn, arg});
    return rc;
}

static void progress(void *arg, size_t done, size_t all)
{
    (void)arg;
    fprintf(stderr, "\rwriting %3.0f %%", all ? 100.0 * (double)done / (double)all : 100.0);
    if (done == all)
        fputs("\r             \r", stderr);
}

int cmd_make_model(const struct options *o, struct err *e)
{
    struct make make = {
        .name = o->word[0],
        .folder = o->word[1],
        .seed = o->seed,
        .type = !strcmp(o->make_dtype, "f32")   ? NUM_F32
                : !strcmp(o->make_dtype, "f16") ? NUM_F16
                                                : NUM_BF16,
        .replace = o->force,
        .tensors = list_tensors,
        .progress = !o->quiet && isatty(STDERR_FILENO) ? progress : NULL,
    };
    int rc = make_model(&make, e);
    if (!rc && !o->quiet)
        fprintf(stderr, "wrote %s; try: tandem run %s 'Hello'\n", make.folder, make.folder);
    return rc;
}
