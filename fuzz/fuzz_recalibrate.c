/* fuzz_recalibrate.c - any bytes as a server's figures: refused, or sums that can be divided. */
#include "predict/recalibrate.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct seen_steps s;
    struct err e;
    if (seen_read(&s, (const char *)bytes, n, "input", &e))
        return 0;
    for (int i = 0; i < s.n; i++)
        must(s.of[i].measured_s > 0 && s.of[i].predicted_s > 0 &&
             (!i || s.of[i].rows > s.of[i - 1].rows));
    return 0;
}
