/* gguf.h - GGUF files: one file with weights, configuration, tokenizer and template.
 *
 * Read as what a Hugging Face folder would hold: tensors under their names there, and the small
 * files as texts. Format: github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3,
 * little endian. Untrusted: every offset is checked before a byte is touched.
 */
#ifndef TANDEM_GGUF_H
#define TANDEM_GGUF_H

#include "base/arena.h"
#include "model/store.h"

bool gguf_is(const char *path); /* ends in .gguf */

/* One value of the metadata; an array is `n` elements of `type` from `at` on. */
struct gguf_value {
    const char *key;
    enum {
        GGUF_U8,
        GGUF_I8,
        GGUF_U16,
        GGUF_I16,
        GGUF_U32,
        GGUF_I32,
        GGUF_F32,
        GGUF_BOOL,
        GGUF_TEXT,
        GGUF_ARRAY,
        GGUF_U64,
        GGUF_I64,
        GGUF_F64,
        GGUF_TYPES
    } type;
    bool array;
    uint64_t n;
    const char *at;
};

struct gguf {
    struct gguf_value *value;
    int n_value;
    struct tensor *t; /* under their names in a Hugging Face folder */
    int n;
};

/* Parse the bytes; names and tables live in the pool, numbers stay where they are. Tensors of types
 * that are not read are kept with type NUM_I32 and refused when asked for, by the name of the type.
 */
int gguf_parse(const void *bytes, size_t n, struct pool *pool, struct gguf *to, struct err *e);

/* Part of gguf_parse(): one tensor per expert instead of one per layer. */
int gguf_split_experts(struct gguf *g, struct pool *pool, struct err *e);

const struct gguf_value *gguf_find(const struct gguf *g, const char *key);
/* A number, or other when it is absent or none. */
double gguf_number(const struct gguf *g, const char *key, double other);
/* The text of a value, or of element i of an array of texts being walked: *at is moved on. */
const char *gguf_text(const struct gguf *g, const char *key, size_t *n);
const char *gguf_next_text(const char **at, size_t *n);

/* The small files that a Hugging Face folder would hold. */
struct gguf_files {
    char *config, *generation, *tokenizer_config; /* JSON; the pool's */
    char *tokenizer;                              /* tokenizer.json, or tokenizer.model */
    size_t n_tokenizer;
    bool spm;             /* tokenizer.model */
    const char *template; /* NULL: none */
    const char *bos, *eos;
};

/* Map the file and make these texts. */
int gguf_files(const char *path, struct pool *pool, struct gguf_files *to, struct err *e);
/* The same from what was parsed; or only the tokenizer, of a file that holds nothing else. */
int gguf_tokenizer_of(const struct gguf *g, struct pool *pool, struct gguf_files *to,
                      struct err *e);
int gguf_files_of(const struct gguf *g, struct pool *pool, struct gguf_files *to, struct err *e);

#endif
