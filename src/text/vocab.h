/* vocab.h - the tables of a tokenizer. Private to text/. */
#ifndef TANDEM_VOCAB_H
#define TANDEM_VOCAB_H

#include "base/arena.h"
#include "base/json.h"
#include "text/tok.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { VOCAB_MAX = 1 << 24, STEPS_MAX = 16, TEMPLATE_MAX = 16, PART_MAX = 2048 };

#define MARK "\xE2\x96\x81" /* U+2581, how SentencePiece spells a blank */

/* What makes a word, within the [] of a pattern; the tokenizers' engine adds 1/4, 1/2 and such to
 * \w in a Split, but not to the words of Whitespace, where joiners count. */
#define WORD_CLASS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

struct text { /* bytes, not 0-terminated */
    const char *s;
    size_t n;
};

struct token {
    struct text text; /* as the file spells it; s == NULL: no token has this id */
    bool added, special;
};

/* A map from bytes to ids, open addressing; the texts are those of the tokens. */
struct text_map {
    int *slot; /* id + 1, 0: free */
    size_t size;
};

struct merge {
    uint64_t pair; /* left << 32 | right; UINT64_MAX: free */
    int rank, to;
};

struct added {
    struct text text;
    int id;
    bool special, lstrip, rstrip, normalized, single_word;
};

/* One step of normalising, splitting or decoding. */
struct step {
    enum {
        STEP_NFC,
        STEP_NFD,
        STEP_NFKC,
        STEP_NFKD,
        STEP_LOWER,
        STEP_STRIP_ACCENTS,
        STEP_PREPEND, /* normalisers */
        STEP_REPLACE,
        STEP_STRIP, /* also decoders */
        STEP_BYTE_LEVEL,
        STEP_METASPACE, /* also splitters */
        STEP_SPLIT,
        STEP_DIGITS, /* splitters */
        STEP_BYTE_FALLBACK,
        STEP_FUSE, /* decoders */
    } kind;
    struct text from, to;    /* replace; strip: from; metaspace: from is its mark; prepend: to */
    pcre2_code *regex;       /* split, replace: owned */
    int start, stop;         /* strip: how many; normaliser: whether */
    bool first_only, always; /* metaspace: where the mark is prepended */
    bool prefix_space, split_each; /* byte level; digits: one by one */
    enum { ISOLATED, REMOVED, WITH_PREVIOUS, WITH_NEXT, CONTIGUOUS } behaviour;
    bool invert;
};

struct steps {
    int n;
    struct step at[STEPS_MAX];
};

struct tok {
    struct pool pool;
    int n_vocab;
    struct token *token; /* [n_vocab] */
    struct text *bytes;  /* [n_vocab] what each stands for */
    struct text_map map;
    struct merge *merge;
    size_t n_merge_slot;
    struct added *added; /* longest first within a first byte */
    int n_added;
    int added_first[257]; /* added[added_first[b] .. added_first[b + 1]) begin with byte b */
    struct steps normal, split, decode;
    int prefix[TEMPLATE_MAX], n_prefix, suffix[TEMPLATE_MAX], n_suffix;
    int bos, eos, unk;
    int byte_id[256]; /* of a byte on its own, -1 when there is none */
    bool byte_level;  /* tokens are spelt in the byte alphabet of GPT-2 */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool cut[256]; /* no merge joins what ends in this byte with what begins with MARK */
};

/* vocab.c */
void vocab_reserve(struct tok *t, int n_vocab);
int vocab_add(struct tok *t, int id, const char *s, size_t n, struct err *e);
int vocab_find(const struct tok *t, const char *s, size_t n);
void vocab_reserve_merges(struct tok *t, size_t n);
void vocab_merge(struct tok *t, int left, int right, int to, int rank);
const struct merge *vocab_merged(const struct tok *t, int left, int right);
/* Every way to make a token of two tokens merges, as tiktoken and SentencePiece do; a result that
 * stands earlier in order[n] first. A token of more than PART_MAX bytes is refused. */
int vocab_merge_parts(struct tok *t, const int *order, int n, struct err *e);
void vocab_sort_added(struct tok *t);
void vocab_find_bytes(struct tok *t); /* fills byte_id */

/* The byte alphabet: a byte as UTF-8 of its letter (returns 1 or 2 bytes), and back (-1: not of
 * the alphabet). */
int byte_letter(unsigned char b, char to[2]);
int letter_byte(unsigned code_point);

/* detok.c: fills bytes, once the vocabulary and the decoders are there. */
void detok_prepare(struct tok *t);

/* tok_steps.c: all steps of a tokenizer.json, after its vocabulary. */
int read_steps(struct tok *t, const json_t *file, struct err *e);

/* tiktoken.c: whether a file begins as tiktoken's do. */
bool tiktoken_bytes(const char *s, size_t n);

/* bpe.c: one piece of text to ids; appends to out. */
struct ids {
    int *at;
    size_t n, room;
};
void ids_push(struct ids *out, int id);
void bpe_prepare(struct tok *t); /* fills cut, once the merges and byte_id are there */
void bpe_encode(const struct tok *t, const char *s, size_t n, struct ids *out);

/* split.c: normalise a stretch of text (malloc'd result), cut it into pieces. first: the stretch
 * begins the text. */
char *normalise(const struct tok *t, const char *s, size_t n, size_t *n_out);
typedef void piece_fn(void *arg, const char *s, size_t n);
void split_text(const struct tok *t, const char *s, size_t n, bool first, piece_fn *fn, void *arg);
pcre2_code *regex_new(const char *pattern, size_t n, struct err *e);

/* White_Space of Unicode; the character at s[0..n), valid UTF-8, and its length in *length. */
bool blank_at(const char *s, size_t n, size_t *length);
bool word_at(const char *s, size_t n); /* of a word, as \w */

/* UTF-8: length of the character at s (n > 0 bytes there), 0 when it is not valid, -1 when it is
 * the valid beginning of one that is cut off. *bad: how many bytes one U+FFFD stands for. */
int utf8_length(const char *s, size_t n, size_t *bad);

#endif
