/* tiny.h - for tests: random models of any shape in memory, and one-call logits of a layout. */
#ifndef TANDEM_TEST_TINY_H
#define TANDEM_TEST_TINY_H

#include "engine/session.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* A model's weights as the bytes of a safetensors file, and the store over them. */
struct tiny {
    char *bytes;
    size_t n;
    struct store *store;
};

struct tiny_writer {
    char *header, *data;
    size_t n_header, n_data;
    uint64_t seed;
    enum num type;
};

/* A shape chosen to be awkward: heads that tp does not divide, odd columns and words. */
static inline struct model tiny_llama(int n_layer)
{
    struct model m = {.arch = "LlamaForCausalLM",
                      .n_layer = n_layer,
                      .n_embd = 48,
                      .n_head = 8,
                      .n_kv = 2,
                      .head_dim = 12,
                      .n_ff = 100,
                      .n_vocab = 203,
                      .n_ctx = 128,
                      .eps = 1e-5f};
    m.kind[0].rope = (struct rope){.theta = 10000};
    m.kind[1] = m.kind[0];
    return m;
}

/* A number in [-1, 1) that depends on the seed and its place only. */
static inline float tiny_number(uint64_t seed, uint64_t at)
{
    uint64_t x = seed * 0x9E3779B97F4A7C15 + at * 0xD1B54A32D192ED03;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
    x = (x ^ x >> 27) * 0x94D049BB133111EB;
    return (float)((double)(x >> 40) / (1 << 23) - 1);
}

static inline void tiny_tensor(void *arg, const struct piece *pc)
{
    struct tiny_writer *w = arg;
    size_t n = (size_t)pc->rows * (size_t)pc->cols, size = num_bytes(w->type);
    bool norm = strstr(pc->name, "norm");
    float gain = pc->matrix ? 2 / __builtin_sqrtf((float)pc->cols) : 0.5f;
    if (w->header) {
        char *at = w->data + w->n_data;
        for (size_t i = 0; i < n; i++) {
            float f = gain * tiny_number(w->seed, w->n_data + i) + (norm ? 1 : 0);
            uint16_t half = w->type == NUM_F16 ? f32_to_f16(f) : f32_to_bf16(f);
            memcpy(at + i * size, w->type == NUM_F32 ? (void *)&f : (void *)&half, size);
        }
    }
    char one[300], shape[40];
    snprintf(shape, sizeof(shape), pc->matrix ? "%d,%d" : "%d", pc->matrix ? pc->rows : pc->cols,
             pc->cols);
    int k = snprintf(one, sizeof(one),
                     "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                     w->n_data ? "," : "{", pc->name,
                     w->type == NUM_F32   ? "F32"
                     : w->type == NUM_F16 ? "F16"
                                          : "BF16",
                     shape, w->n_data, w->n_data + n * size);
    if (w->header)
        memcpy(w->header + w->n_header, one, (size_t)k);
    w->n_header += (size_t)k;
    w->n_data += n * size;
}

static inline struct tiny tiny_make(const struct model *m, enum num type, uint64_t seed)
{
    struct plan p;
    struct err e;
    struct plan_ask ask = {.weight = type, .kv = NUM_F32, .numerics = "f32-fma", .ctx = 1};
    struct tiny t = {0};
    if (plan_make(&p, m, &ask, &e))
        fail_msg("%s", e.text);
    struct tiny_writer w = {.seed = seed, .type = type};
    plan_pieces(&p, PLAN_WHOLE, tiny_tensor, &w);
    uint64_t header = w.n_header + 1;
    t.n = 8 + header + w.n_data;
    t.bytes = malloc(t.n);
    assert_non_null(t.bytes);
    memcpy(t.bytes, &header, 8);
    w = (struct tiny_writer){
        .header = t.bytes + 8, .data = t.bytes + 8 + header, .seed = seed, .type = type};
    plan_pieces(&p, PLAN_WHOLE, tiny_tensor, &w);
    t.bytes[8 + w.n_header] = '}';
    if (store_open_bytes(t.bytes, t.n, "tiny", &t.store, &e))
        fail_msg("%s", e.text);
    return t;
}

static inline void tiny_free(struct tiny *t)
{
    store_close(t->store);
    free(t->bytes);
}

/* Logits [n][n_vocab] of ids under a plan, computed by a team of real processes. malloc'd. */
static inline float *tiny_logits(const struct plan *p, const struct store *s, enum isa isa,
                                 const int *ids, int n)
{
    struct team *team = NULL;
    struct err e;
    struct team_opts opts = {.isa = isa, .keep_logits = true};
    float *to = malloc((size_t)n * (size_t)p->model.n_vocab * sizeof(*to));
    assert_non_null(to);
    if (team_start(&team, p, s, &opts, &e))
        fail_msg("%s", e.text);
    struct session *session = session_new(team, p);
    if (session_logits(session, ids, n, to, &e))
        fail_msg("%s", e.text);
    session_free(session);
    team_stop(team);
    return to;
}

/* Where the shared test data is, or NULL. */
static inline const char *shared_data(void)
{
    const char *at = getenv("TANDEM_SHARED");
    return at ? at : "../shared";
}

#endif
