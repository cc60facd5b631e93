/* experts_help.h - for tests: a layer's experts on one device, random rows and where they go. */
#ifndef TANDEM_EXPERTS_HELP_H
#define TANDEM_EXPERTS_HELP_H

#include "dev_help.h"

/* Several groups of columns, shares of several tiles, experts with more rows than a job takes. */
enum { HIDDEN = 150, FF = 330, EXPERTS = 5, ROWS = 300, TOP = 2, PARTS = 3 };

struct block {
    struct help h;
    struct expert expert[EXPERTS];
    struct mat x;
    int chosen[ROWS * TOP];
    float weight[ROWS * TOP];
    struct expert_room room;
};

static inline void block_begin(struct block *b, enum num type)
{
    int size[PARTS];
    b->h = help_begin(ROWS, FF);
    for (int e = 0; e < EXPERTS; e++) {
        b->h.seed = (uint64_t)e + 50;
        struct mat gate = help_mat(&b->h, FF, HIDDEN), up = help_mat(&b->h, FF, HIDDEN),
                   down = help_mat(&b->h, HIDDEN, FF);
        help_sizes(&b->h, FF, PARTS, size);
        b->expert[e] = (struct expert){help_cut(&b->h, type, CUT_ROWS, &gate, 0, PARTS, size),
                                       help_cut(&b->h, type, CUT_ROWS, &up, 0, PARTS, size),
                                       help_cut(&b->h, type, CUT_COLS, &down, 0, PARTS, size)};
    }
    b->x = help_mat(&b->h, ROWS, HIDDEN);
    for (int i = 0; i < ROWS * HIDDEN; i++)
        ((float *)b->x.at)[i] =
            (float)(help_draw(&b->h, 2000) - 1000) * 2e-5f; /* no term beyond 2^18 */
    for (int i = 0; i < ROWS * TOP; i++) {
        b->chosen[i] = i % TOP ? (b->chosen[i - 1] + 1 + help_draw(&b->h, EXPERTS - 1)) % EXPERTS
                               : help_draw(&b->h, 8) % EXPERTS;
        b->weight[i] = (float)help_draw(&b->h, 1000) * 1e-3f;
    }
    b->room =
        (struct expert_room){.x = help_mat(&b->h, ROWS, HIDDEN + EXPERT_PAD),
                             .hidden = help_mat(&b->h, ROWS * TOP + 1, FF + PARTS * EXPERT_PAD),
                             .row = help_bytes(&b->h, sizeof(b->chosen)),
                             .weight = help_bytes(&b->h, sizeof(b->weight))};
}

/* Rows of x through the experts; one without columns adds nothing. */
static inline void sum_of(struct block *b, struct dev *d, struct span rows,
                          const struct expert *expert, int64_t *sum)
{
    struct mat x = mat_rows(&b->x, rows), y = {len(rows), HIDDEN, NUM_I64, sum};
    struct routed r = {len(rows), TOP, false, b->chosen + rows.lo * TOP, b->weight + rows.lo * TOP,
                       NULL,      NULL};
    dev_experts(d, &y, &x, expert, EXPERTS, &r, &b->room);
    assert_int_equal(d->err, 0);
}

#endif
