/* model_help.h - plans of known shapes, for tests that read no weight. Include after cmocka.h. */
#ifndef TANDEM_TEST_MODEL_HELP_H
#define TANDEM_TEST_MODEL_HELP_H

#include "model/folder.h"
#include "plan/plan.h"

static inline struct model shape_of(const char *name)
{
    struct generation g;
    struct notes notes;
    struct model m = {0};
    struct err e;
    const char *config = model_config(name);
    assert_non_null(config);
    if (model_parse(config, strlen(config), NULL, 0, &m, &g, &notes, &e))
        fail_msg("%s: %s", name, e.text);
    return m;
}

/* Weights in bf16, and the cache too unless ask says. */
static inline struct plan plan_of(const char *name, struct plan_ask ask)
{
    const struct model m = shape_of(name);
    struct plan p = {0};
    struct err e;
    ask.weight = NUM_BF16, ask.kv = ask.kv ? ask.kv : NUM_BF16, ask.numerics = "bf16-dot";
    if (plan_make(&p, &m, &ask, &e))
        fail_msg("%s: %s", name, e.text);
    return p;
}

#endif
