/* tok.h - text to token ids and back.
 *
 * Reads tokenizer.json (byte-level BPE, SentencePiece-style BPE with byte fallback) or, when that
 * is absent, tokenizer.model (SentencePiece protobuf, or Llama 3's ranks as tiktoken has them). A
 * tokenizer is read-only after loading and may be shared; a detokeniser is the state of one stream.
 */
#ifndef TANDEM_TOK_H
#define TANDEM_TOK_H

#include "base/base.h"

struct tok;

/* Load from a model folder: tokenizer.json, else tokenizer.model. tokenizer_config.json, when
 * present, names bos and eos; whether TOK_SPECIAL adds them is for tokenizer.json's post-processor
 * to say, but for add_bos_token (default: yes), add_eos_token (no) and add_prefix_space (what
 * the file says) with tokenizer.model. Free with tok_free(). */
int tok_load(const char *folder, struct tok **out, struct err *e);
/* The same from bytes of a tokenizer.json (untrusted), as the fuzz target does; `what` names it in
 * errors. */
int tok_load_json(const char *text, size_t n, const char *what, struct tok **out, struct err *e);
int tok_load_spm(const void *bytes, size_t n, const char *what, struct tok **out, struct err *e);
int tok_load_tiktoken(const char *text, size_t n, const char *what, struct tok **out,
                      struct err *e);
void tok_free(struct tok *t);

int tok_n_vocab(const struct tok *t);           /* largest id + 1, added tokens included */
int tok_id(const struct tok *t, const char *s); /* of a whole token's text, or -1 */
/* The bytes a token stands for in its own (special tokens: their text); length in *n. Valid while
 * t lives. NULL for an id that names no token. */
const char *tok_bytes(const struct tok *t, int id, size_t *n);
bool tok_is_special(const struct tok *t, int id);
int tok_bos(const struct tok *t); /* -1 when there is none */
int tok_eos(const struct tok *t);

enum {
    TOK_SPECIAL = 1, /* add what the post-processor adds (bos, ...) */
    TOK_PARSE = 2,   /* special tokens spelt out in the text become those tokens (templates) */
};

/* Encode n bytes of text; invalid UTF-8 is refused with -EILSEQ naming the byte offset. *ids is
 * malloc'd, the caller frees it; *n_ids may be 0. Without TOK_PARSE, the text "<s>" of a special
 * token is ordinary text. */
int tok_encode(const struct tok *t, const char *text, size_t n, int flags, int **ids, size_t *n_ids,
               struct err *e);

/* All of ids as text, as Hugging Face decode() gives it; special tokens left out when
 * skip_special. malloc'd, 0-terminated, the caller frees it. */
char *tok_decode(const struct tok *t, const int *ids, size_t n, bool skip_special);

/* Streaming: feed ids one by one, get text that never ends inside a character. Concatenated
 * pieces, with the flush, equal tok_decode() of all the ids. */
struct detok;
struct detok *detok_new(const struct tok *t, bool skip_special);
/* The text this id completes, 0-terminated, length in *n (may be 0); valid until the next call. */
const char *detok_next(struct detok *d, int id, size_t *n);
/* What is still held back at the end (incomplete bytes as U+FFFD); then the state is fresh. */
const char *detok_flush(struct detok *d, size_t *n);
void detok_free(struct detok *d);

#endif
