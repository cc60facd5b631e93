/* opt.h - the command line as data.
 *
 * options.def is the one table of verbs and options. The parser, `--help`, the manual page and the
 * shell completion all expand it, so they cannot disagree. What the options mean is the verbs'
 * business.
 */
#ifndef TANDEM_OPT_H
#define TANDEM_OPT_H

#include "base/base.h"

enum verb {
#define VERB(ID, id, ...) VERB_##ID,
#include "base/options.def"
    VERB_COUNT
};

enum { OPT_LIST_MAX = 16, OPT_WORDS_MAX = 8 };

/* The values of an option that may be given several times, in order. */
struct opt_list {
    int n;
    const char *at[OPT_LIST_MAX];
};

/* The type an option's value has in struct options. */
#define OPT_TYPE_FLAG bool
#define OPT_TYPE_INT int
#define OPT_TYPE_SEED uint64_t
#define OPT_TYPE_REAL double
#define OPT_TYPE_SIZE size_t
#define OPT_TYPE_CHOICE const char *
#define OPT_TYPE_TEXT const char *
#define OPT_TYPE_LIST struct opt_list

/* One parsed command line: o->tp, o->top_p, o->stop.at[0] ... An option that was not given has its
 * default, or 0 or NULL where the table names none; o->given.top_p tells which it was. Texts point
 * into argv. */
struct options {
    enum verb verb;
    char **argv; /* the whole line, 0-terminated, for a program that takes it over */
    bool help;   /* --help: show the verb's help, nothing else was checked */
    int n_word;
    const char *word[OPT_WORDS_MAX]; /* what is not an option: MODEL, PROMPT, ... */
#define OPTION(id, name, letter, kind, ...) OPT_TYPE_##kind id;
#include "base/options.def"
    struct {
#define OPTION(id, ...) bool id;
#include "base/options.def"
    } given;
};

enum opt_kind {
    OPT_FLAG,   /* no value */
    OPT_INT,    /* a whole number in [lo, hi] */
    OPT_SEED,   /* a whole number of 64 bits without sign */
    OPT_REAL,   /* a number in [lo, hi] */
    OPT_SIZE,   /* a number of bytes in [lo, hi], with K, M or G for 1024, 1024^2, 1024^3 */
    OPT_CHOICE, /* one of the words in value, which are separated by '|' */
    OPT_TEXT,   /* anything */
    OPT_LIST,   /* anything, up to OPT_LIST_MAX times */
};

/* The rows of options.def, for those who print them. */
struct opt_row {
    const char *name;
    char letter; /* 0: no short form */
    enum opt_kind kind;
    double lo, hi;
    const char *fallback; /* default as the user would write it, "" for none */
    const char *value;    /* what to call the value, e.g. "FILE" */
    unsigned verbs;       /* bit 1 << enum verb: who takes it */
    const char *help;
    size_t at, given; /* offsets into struct options */
};

struct verb_row {
    const char *name; /* one word, or two: "bench allreduce" */
    const char *words;
    int min_words, max_words;
    const char *summary, *about, *example;
};

extern const struct opt_row opt_rows[];
extern const int opt_row_count;
extern const struct verb_row verb_rows[VERB_COUNT];

/* The rows of elsewhere.def. */
extern const struct opt_elsewhere {
    const char *name, *say;
} opt_elsewhere[];
extern const int opt_elsewhere_count;

/* Parse argv[1..argc). A usage error gives -EINVAL and one sentence that ends with where to look.
 * The empty command line, --help and --version are the verbs help and version. */
int opt_parse(struct options *o, int argc, char **argv, struct err *e);

/* The verb that the first one or two of n words name, and in *used how many words that took; -1
 * for none. */
int opt_verb(int n, const char *const *word, int *used);

#endif
