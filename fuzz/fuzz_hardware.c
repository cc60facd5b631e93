/* fuzz_hardware.c - any bytes as a hardware profile: refused, or one that is read back alike. */
#include "base/json.h"
#include "topo/hardware.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct hardware h, again;
    struct err e;
    json_t *o = json_parse((const char *)bytes, n, "input", &e);
    if (o && !hardware_from_json(o, &h, &e)) {
        json_t *copy = hardware_to_json(&h);
        must(!hardware_from_json(copy, &again, &e));
        json_decref(copy);
    }
    json_decref(o);
    return 0;
}
