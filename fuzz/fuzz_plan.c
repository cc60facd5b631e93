/* fuzz_plan.c - any bytes as a plan: refused, or a plan whose pieces can be listed. */
#include "base/json.h"
#include "plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct plan p;
    struct err e;
    json_t *o = json_parse((const char *)bytes, n, "input", &e);
    if (o && !plan_from_json(o, &p, &e))
        for (int r = 0; r < plan_ranks(&p); r++)
            plan_weight_bytes(&p, r);
    json_decref(o);
    return 0;
}
