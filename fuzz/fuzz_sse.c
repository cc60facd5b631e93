/* fuzz_sse.c - any bytes as a stream of events, whole and in pieces: both give the same events, and
 * every event is taken as a chunk of an answer. The first byte is the length of the pieces. */
#include "load/answer.h"
#include "load/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

struct heard {
    uint64_t hash; /* FNV-1a of all events and their lengths */
    struct answer answer;
};

static void hear(void *arg, const char *data, size_t n)
{
    struct heard *h = arg;
    h->hash = (h->hash ^ n) * 0x100000001b3u;
    for (size_t i = 0; i < n; i++)
        h->hash = (h->hash ^ (uint8_t)data[i]) * 0x100000001b3u;
    answer_take(&h->answer, data, n);
    must(memchr(h->answer.why, 0, sizeof(h->answer.why)));
}

static struct heard hear_all(const char *at, size_t n, size_t piece)
{
    struct heard h = {.hash = 1};
    struct sse s = {.event = hear, .arg = &h};
    for (size_t done = 0; done < n; done += piece)
        must(!sse_feed(&s, at + done, min_size(piece, n - done)));
    sse_free(&s);
    return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 2)
        return 0;
    const char *at = (const char *)bytes + 1;
    struct heard whole = hear_all(at, n - 1, n), cut = hear_all(at, n - 1, 1 + bytes[0] % 16);
    must(whole.hash == cut.hash && whole.answer.finished == cut.answer.finished);
    must(whole.answer.prompt_tok >= 0 && whole.answer.output_tok >= 0);
    return 0;
}
