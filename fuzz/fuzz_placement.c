/* fuzz_placement.c - any bytes as a placement of experts: refused, or one that a step can be shared
 * out by. */
#include "base/json.h"
#include "plan/placement.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const int rows[4] = {100, 0, 7, 1};
    static struct turns turns;
    struct placement layer[2] = {placement_even(4, 3), placement_all(4, 3)};
    struct err e;
    json_t *o = json_parse((const char *)bytes, n, "input", &e);
    if (o && !placement_from_json(o, layer, COUNT(layer), &e))
        for (size_t l = 0; l < COUNT(layer); l++)
            placement_assign(&turns, &layer[l], rows, &turn_cost_cpu);
    json_decref(o);
    return 0;
}
