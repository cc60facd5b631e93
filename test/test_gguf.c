/* test_gguf.c - GGUF files: numbers without loss, tokens as the reference gives them, and every
 * kind of damage refused. The files are made here, value by value. */
#include "dev/weight.h"
#include "model/folder.h"
#include "model/gguf.h"
#include "text/tok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

/* ------------------------------------------------------------------------------- writing */

struct file {
    char *bytes;
    size_t n;
    FILE *f;
};

static void u32(struct file *w, uint32_t v) { fwrite(&v, 4, 1, w->f); }
static void u64(struct file *w, uint64_t v) { fwrite(&v, 8, 1, w->f); }

static void text(struct file *w, const char *s)
{
    u64(w, strlen(s));
    fputs(s, w->f);
}

static void value_text(struct file *w, const char *key, const char *s)
{
    text(w, key);
    u32(w, GGUF_TEXT);
    text(w, s);
}

static void value_u32(struct file *w, const char *key, uint32_t v)
{
    text(w, key);
    u32(w, GGUF_U32);
    u32(w, v);
}

static void value_texts(struct file *w, const char *key, const char *const *s, int n)
{
    text(w, key);
    u32(w, GGUF_ARRAY);
    u32(w, GGUF_TEXT);
    u64(w, (uint64_t)n);
    for (int i = 0; i < n; i++)
        text(w, s[i]);
}

enum { ROWS = 20, COLS = 96, HEAD = 4 };

/* A file with one matrix (as the query projection of a "llama"), of the file's type `type`. */
static struct file one_matrix(uint32_t type, const void *data, size_t bytes, const char *name)
{
    static const char *const token[] = {"a", "b", "ab", "<|end|>"}, *const merge[] = {"a b"};
    struct file w = {0};
    w.f = open_memstream(&w.bytes, &w.n);
    fwrite("GGUF", 1, 4, w.f);
    u32(&w, 3);
    u64(&w, 2);
    u64(&w, 11);
    value_text(&w, "general.architecture", "llama");
    value_u32(&w, "llama.block_count", 1);
    value_u32(&w, "llama.embedding_length", COLS);
    value_u32(&w, "llama.feed_forward_length", 64);
    value_u32(&w, "llama.attention.head_count", 5);
    value_u32(&w, "llama.attention.key_length", HEAD);
    value_text(&w, "tokenizer.ggml.model", "gpt2");
    value_text(&w, "tokenizer.ggml.pre", "gpt-2");
    value_texts(&w, "tokenizer.ggml.tokens", token, 4);
    value_texts(&w, "tokenizer.ggml.merges", merge, 1);
    value_u32(&w, "tokenizer.ggml.eos_token_id", 3);
    text(&w, name);
    u32(&w, 2);
    u64(&w, COLS);
    u64(&w, ROWS);
    u32(&w, type);
    u64(&w, 0);
    text(&w, "token_embd.weight");
    u32(&w, 2);
    u64(&w, COLS);
    u64(&w, 4);
    u32(&w, 0);
    u64(&w, round_up(bytes, 32));
    fflush(w.f);
    static const char zero[32 + 4 * COLS * 4];
    fwrite(zero, 1, round_up(w.n, 32) - w.n, w.f);
    fwrite(data, 1, bytes, w.f);
    fwrite(zero, 1, round_up(bytes, 32) - bytes + 4 * COLS * 4, w.f);
    fclose(w.f);
    return w;
}

/* ------------------------------------------------------------------------------- numbers */

static uint32_t draw(uint32_t *seed) { return *seed = *seed * 1664525 + 1013904223; }

/* Random groups of 32 with sane scales; fills what they mean, row by row of the file. */
static size_t random_groups(enum num type, unsigned char *to, float *meaning)
{
    struct quant q = num_quant(type);
    uint32_t seed = 3;
    unsigned char *at = to;
    for (int g = 0; g < ROWS * COLS / 32; g++) {
        uint16_t scale = f32_to_f16((float)(draw(&seed) >> 20) * 1e-5f);
        uint16_t least = f32_to_f16((float)(draw(&seed) >> 20) * -1e-4f);
        memcpy(at, &scale, 2), at += 2;
        if (q.least)
            memcpy(at, &least, 2), at += 2;
        for (int i = 0; i < 4 * q.bits; i++)
            at[i] = (unsigned char)(draw(&seed) >> 13);
        for (int i = 0; i < 32; i++) {
            int v = q.bits == 8 ? (signed char)at[i] : (at[i % 16] >> (i / 16 * 4) & 15) - q.zero;
            *meaning++ = (float)v * f16_to_f32(scale) + (q.least ? f16_to_f32(least) : 0);
        }
        at += 4 * q.bits;
    }
    return (size_t)(at - to);
}

/* The row of the file where row r of a projection stands. */
static int interleaved(int r)
{
    int i = r % HEAD;
    return r - i + (i < HEAD / 2 ? 2 * i : 2 * (i - HEAD / 2) + 1);
}

static void whole_numbers_are_taken_without_loss(void **state)
{
    static const struct {
        uint32_t file;
        enum num type;
    } kind[] = {{8, NUM_INT8_G32}, {2, NUM_INT4_G32}, {3, NUM_INT4_G32Z}};
    static unsigned char data[ROWS * COLS * 2];
    static float meaning[ROWS * COLS];
    (void)state;
    for (size_t k = 0; k < COUNT(kind); k++) {
        size_t bytes = random_groups(kind[k].type, data, meaning);
        struct file w = one_matrix(kind[k].file, data, bytes, "blk.0.attn_q.weight");
        struct pool pool = {0};
        struct gguf g;
        struct err e;
        if (gguf_parse(w.bytes, w.n, &pool, &g, &e))
            fail_msg("%s", e.text);
        const struct tensor *t = &g.t[0];
        assert_string_equal(t->name, "model.layers.0.self_attn.q_proj.weight");
        assert_int_equal(t->type, kind[k].type);
        assert_int_equal(t->pairs, HEAD);
        /* a part from the middle, beginning at a group and ending inside one */
        struct part p = {10, 40, NULL};
        struct stored from = {
            .at = t->data, .type = t->type, .stride = COLS, .row = 8, .col = 32, .pairs = t->pairs};
        p.at = aligned_alloc(64, part_bytes(t->type, p.rows, p.cols));
        struct part f = {10, 40, aligned_alloc(64, part_bytes(NUM_F32, 10, 40))};
        assert_int_equal(part_pack(&p, t->type, &from), 0);
        assert_int_equal(part_pack(&f, NUM_F32, &from), 0);
        for (int r = 0; r < 10; r++) {
            float got[40], wide[40];
            const float *want = meaning + interleaved(8 + r) * COLS + 32;
            part_row(&p, t->type, r, got);
            part_row(&f, NUM_F32, r, wide);
            assert_memory_equal(wide, want, sizeof(wide));
            for (int c = 0; c < 32; c++) /* with a least number, by one rounding less */
                assert_true(kind[k].type == NUM_INT4_G32Z
                                ? __builtin_fabsf(got[c] - want[c]) < 1e-6f
                                : got[c] == want[c]);
        }
        free(p.at), free(f.at), free(w.bytes);
        pool_free(&pool);
    }
}

/* ------------------------------------------------------------------------------- experts */

enum { EXPERTS = 3, WIDE = 5 };

/* All experts' up projections of a layer in one tensor of f32, number by number 0, 1, 2 ...; and
 * the gate of a shared expert, a list. */
static struct file experts_of(const char *arch, uint64_t n_expert)
{
    struct file w = {0};
    w.f = open_memstream(&w.bytes, &w.n);
    fwrite("GGUF", 1, 4, w.f);
    u32(&w, 3);
    u64(&w, 2);
    u64(&w, 1);
    value_text(&w, "general.architecture", arch);
    text(&w, "blk.4.ffn_up_exps.weight");
    u32(&w, 3);
    u64(&w, COLS), u64(&w, WIDE), u64(&w, n_expert);
    u32(&w, 0);
    u64(&w, 0);
    text(&w, "blk.4.ffn_gate_inp_shexp.weight");
    u32(&w, 1);
    u64(&w, COLS);
    u32(&w, 0);
    u64(&w, 0);
    fflush(w.f);
    for (size_t n = w.n; n % 32; n++)
        putc(0, w.f);
    for (int i = 0; i < EXPERTS * WIDE * COLS; i++)
        fwrite(&(float){(float)i}, sizeof(float), 1, w.f);
    fclose(w.f);
    return w;
}

static void experts_of_a_layer_become_tensors_of_their_own(void **state)
{
    static const char *const arch[] = {"llama", "olmoe"};
    static const char *const name[] = {"model.layers.4.block_sparse_moe.experts.%d.w3.weight",
                                       "model.layers.4.mlp.experts.%d.up_proj.weight"};
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct file w = experts_of(arch[k], EXPERTS);
        struct pool pool = {0};
        struct gguf g;
        struct err e;
        if (gguf_parse(w.bytes, w.n, &pool, &g, &e))
            fail_msg("%s", e.text);
        assert_int_equal(g.n, EXPERTS + 1);
        for (int i = 0; i < EXPERTS; i++) {
            const struct tensor *t = &g.t[i];
            char want[80], *at = strstr(name[k], "%d");
            float first;
            snprintf(want, sizeof(want), "%.*s%d%s", (int)(at - name[k]), name[k], i, at + 2);
            assert_string_equal(t->name, want);
            assert_true(t->n_dim == 2 && t->dim[0] == WIDE && t->dim[1] == COLS);
            assert_int_equal(t->bytes, WIDE * COLS * sizeof(float));
            memcpy(&first, t->data, sizeof(first));
            assert_true(first == (float)(i * WIDE * COLS));
        }
        const struct tensor *gate = &g.t[EXPERTS];
        assert_string_equal(gate->name, "model.layers.4.mlp.shared_expert_gate.weight");
        assert_true(gate->n_dim == 2 && gate->dim[0] == 1 && gate->dim[1] == COLS);
        pool_free(&pool);
        free(w.bytes);
    }
}

static void absurd_numbers_of_experts_are_refused(void **state)
{
    static const uint64_t n[] = {EXPERTS + 1, 0, 1 << 20, UINT64_MAX};
    (void)state;
    for (size_t i = 0; i < COUNT(n); i++) {
        struct file w = experts_of("olmoe", n[i]);
        struct pool pool = {0};
        struct gguf g;
        struct err e = {""};
        assert_true(gguf_parse(w.bytes, w.n, &pool, &g, &e) < 0);
        assert_non_null(strstr(e.text, "up_proj"));
        pool_free(&pool);
        free(w.bytes);
    }
}

/* ------------------------------------------------------------------------------- files */

static void the_small_files_are_those_of_a_folder(void **state)
{
    static const float data[ROWS * COLS];
    struct file w = one_matrix(0, data, sizeof(data), "blk.0.attn_q.weight");
    struct pool pool = {0};
    struct gguf g;
    struct gguf_files f;
    struct model m;
    struct generation gen;
    struct notes notes;
    struct tok *tok;
    struct err e;
    int *ids;
    size_t n;
    (void)state;
    assert_int_equal(gguf_parse(w.bytes, w.n, &pool, &g, &e), 0);
    if (gguf_files_of(&g, &pool, &f, &e))
        fail_msg("%s", e.text);
    if (model_parse(f.config, strlen(f.config), f.generation, strlen(f.generation), &m, &gen,
                    &notes, &e))
        fail_msg("%s", e.text);
    assert_int_equal(m.n_embd, COLS);
    assert_int_equal(m.head_dim, HEAD);
    assert_int_equal(m.n_kv, 5);
    assert_int_equal(m.n_vocab, 4);
    assert_true(m.tied);
    assert_int_equal(gen.n_eos, 1);
    assert_int_equal(gen.eos[0], 3);
    if (tok_load_json(f.tokenizer, f.n_tokenizer, "made", &tok, &e))
        fail_msg("%s", e.text);
    assert_int_equal(tok_encode(tok, "abab", 4, 0, &ids, &n, &e), 0);
    assert_int_equal(n, 2);
    assert_int_equal(ids[0], 2);
    free(ids);
    tok_free(tok);
    free(w.bytes);
    pool_free(&pool);
}

static void expect_refusal(const char *bytes, size_t n, const char *words)
{
    struct pool pool = {0};
    struct gguf g;
    struct gguf_files f;
    struct err e = {""};
    int rc = gguf_parse(bytes, n, &pool, &g, &e);
    if (!rc)
        rc = gguf_files_of(&g, &pool, &f, &e);
    pool_free(&pool);
    assert_true(rc < 0);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" does not say \"%s\"", e.text, words);
}

static void damaged_files_are_refused(void **state)
{
    static const float data[ROWS * COLS];
    (void)state;
    struct file w = one_matrix(0, data, sizeof(data), "blk.0.attn_q.weight");
    struct pool pool = {0};
    struct gguf g;
    struct err e;
    /* every beginning of the file is refused, and none is read beyond its end */
    for (size_t n = 0; n < w.n; n += n < 1200 ? 1 : 97) {
        char *copy = malloc(n + 1);
        memcpy(copy, w.bytes, n);
        assert_true(gguf_parse(copy, n, &pool, &g, &e) < 0);
        free(copy);
    }
    pool_free(&pool);
    w.bytes[4] = 1;
    expect_refusal(w.bytes, w.n, "version 1");
    w.bytes[4] = 3, w.bytes[0] = 'X';
    expect_refusal(w.bytes, w.n, "not a GGUF file");
    w.bytes[0] = 'G', memset(w.bytes + 8, 0xff, 8);
    expect_refusal(w.bytes, w.n, "header makes no sense");
    free(w.bytes);
    w = one_matrix(14, data, sizeof(data), "blk.0.attn_q.weight");
    char *at = memmem(w.bytes, w.n, "llama", 5);
    memcpy(at, "bloom", 5);
    expect_refusal(w.bytes, w.n, "\"bloom\" is not supported; llama");
    free(w.bytes);
}

static void a_format_that_is_not_read_is_named(void **state)
{
    static const float data[ROWS * COLS];
    char path[] = "/tmp/tandem-XXXXXX.gguf";
    struct store *s;
    struct tensor t;
    struct err e = {""};
    (void)state;
    struct file w = one_matrix(14, data, sizeof(data), "blk.0.attn_q.weight");
    int fd = mkstemps(path, 5);
    assert_int_equal(write(fd, w.bytes, w.n), (ssize_t)w.n);
    close(fd);
    if (store_open(path, &s, &e))
        fail_msg("%s", e.text);
    assert_int_equal(store_find(s, "model.layers.0.self_attn.q_proj.weight", ROWS, COLS, &t, &e),
                     -ENOTSUP);
    assert_non_null(strstr(e.text, "q_proj"));
    assert_non_null(strstr(e.text, "Q6_K"));
    assert_non_null(strstr(e.text, "Q4_0"));
    store_close(s);
    unlink(path);
    free(w.bytes);
}

/* ------------------------------------------------------------------------------- real files */

static const char *vocabulary(const char *name)
{
    static char path[512];
    const char *shared = getenv("TANDEM_SHARED");
    snprintf(path, sizeof(path), "%s/data/tokenizers/gguf-vocab/%s", shared ? shared : "../shared",
             name);
    if (access(path, R_OK)) {
        print_message("skipped: no shared test data at %s\n", path);
        skip();
    }
    return path;
}

static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *to = malloc(16 << 20);
    assert_non_null(f);
    *n = fread(to, 1, (16 << 20) - 1, f);
    to[*n] = 0;
    fclose(f);
    return to;
}

/* Texts between lines of __ggml_vocab_test__, ids line by line beside them. */
static int compare_vectors(const struct tok *tok, const char *inp, char *out)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    int cases = 0;
    char *save = NULL, *line = strtok_r(out, "\n", &save);
    for (const char *at = inp, *end; (end = strstr(at, mark)); at = end + strlen(mark)) {
        struct err e;
        int *ids;
        size_t n, k = 0;
        assert_int_equal(tok_encode(tok, at, (size_t)(end - at), 0, &ids, &n, &e), 0);
        if (n || end > at) {
            assert_non_null(line);
            for (char *rest = line, *stop; k <= n; k++, rest = stop) {
                long id = strtol(rest, &stop, 10);
                if (stop == rest)
                    break;
                if (k == n || ids[k] != id)
                    fail_msg("case %d: token %zu is %d, not %ld", cases, k, k < n ? ids[k] : -1,
                             id);
            }
            assert_int_equal(k, n);
            line = strtok_r(NULL, "\n", &save);
        }
        free(ids);
        cases++;
    }
    return cases;
}

static void check_vocabulary(const char *name)
{
    char file[128];
    struct pool pool = {0};
    struct gguf g;
    struct gguf_files f = {0};
    struct tok *tok;
    struct err e;
    size_t n, ignored;
    snprintf(file, sizeof(file), "%s.gguf", name);
    char *bytes = slurp(vocabulary(file), &n);
    if (gguf_parse(bytes, n, &pool, &g, &e) || gguf_tokenizer_of(&g, &pool, &f, &e))
        fail_msg("%s", e.text);
    int rc = f.spm ? tok_load_spm(f.tokenizer, f.n_tokenizer, name, &tok, &e)
                   : tok_load_json(f.tokenizer, f.n_tokenizer, name, &tok, &e);
    if (rc)
        fail_msg("%s", e.text);
    snprintf(file, sizeof(file), "%s.gguf.inp", name);
    char *inp = slurp(vocabulary(file), &ignored);
    snprintf(file, sizeof(file), "%s.gguf.out", name);
    char *out = slurp(vocabulary(file), &ignored);
    assert_true(compare_vectors(tok, inp, out) > 40);
    free(inp), free(out), free(bytes);
    tok_free(tok);
    pool_free(&pool);
}

static void tokens_of_a_sentencepiece_file_are_the_references(void **state)
{
    (void)state;
    check_vocabulary("ggml-vocab-llama-spm");
}

static void tokens_of_a_byte_level_file_are_the_references(void **state)
{
    (void)state;
    check_vocabulary("ggml-vocab-gpt-2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_numbers_are_taken_without_loss),
        cmocka_unit_test(experts_of_a_layer_become_tensors_of_their_own),
        cmocka_unit_test(absurd_numbers_of_experts_are_refused),
        cmocka_unit_test(the_small_files_are_those_of_a_folder),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(a_format_that_is_not_read_is_named),
        cmocka_unit_test(tokens_of_a_sentencepiece_file_are_the_references),
        cmocka_unit_test(tokens_of_a_byte_level_file_are_the_references),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
