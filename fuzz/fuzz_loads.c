/* fuzz_loads.c - any bytes as loads of experts: refused, or rows that a placement follows from. */
#include "base/json.h"
#include "sched/balance.h"
#include "sched/loads.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct model m = {.n_layer = 2, .experts = {.n = 4, .top = 2}};
    const struct balance how = {.n_expert = 4, .n_run = 3, .redundant = 1};
    double rows[8];
    struct err e;
    json_t *o = json_parse((const char *)bytes, n, "input", &e);
    if (o && !loads_from_json(o, &m, rows, &e))
        for (int l = 0; l < m.n_layer; l++) {
            struct placement p = balance_place(&how, rows + 4 * l);
            must(!placement_check(&p, &e));
        }
    json_decref(o);
    return 0;
}
