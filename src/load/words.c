/* words.c - see words.h. */
#include "load/words.h"
#include "base/json.h"

#include <math.h>

/* Common enough to be a token or two in most vocabularies. */
static const char list[WORDS_LIST][WORDS_LONGEST + 1] = {
    "time",   "year",   "people", "way",    "day",   "man",   "thing",  "woman", "life",  "child",
    "world",  "school", "state",  "family", "group", "hand",  "part",   "place", "case",  "week",
    "point",  "water",  "room",   "mother", "area",  "money", "story",  "fact",  "month", "right",
    "study",  "book",   "eye",    "job",    "word",  "side",  "kind",   "head",  "house", "friend",
    "power",  "hour",   "game",   "line",   "end",   "law",   "car",    "city",  "name",  "team",
    "minute", "idea",   "body",   "back",   "face",  "door",  "health", "art",   "war",   "party",
    "night",  "food",   "table",  "music",
};

static char *put(char *begin, char *to, const char *word)
{
    if (to > begin)
        *to++ = ' ';
    return stpcpy(to, word);
}

int words_for(const struct words_rate *r, int tok, bool whole_prompt)
{
    double n = (tok - (whole_prompt ? r->tok_around : 0)) / r->tok_per_word;
    return (int)fmax(1, round(n));
}

char *words_draw(char *begin, char *to, int n, struct draws d)
{
    for (int i = 0; i < n; i++)
        to = put(begin, to, list[draw_bits(&d) % WORDS_LIST]);
    return to;
}

char *words_all(char *begin, char *to, int rounds, int more)
{
    for (int i = 0; i < rounds * WORDS_LIST + more; i++)
        to = put(begin, to, list[i % WORDS_LIST]);
    return to;
}

/* ------------------------------------------------------------------------------- a file */

static int take_line(struct prompts *p, const char *line, size_t n, size_t number, const char *what,
                     struct err *e)
{
    int rc = 0;
    json_error_t at;
    if (*line != '{') {
        json_t *text = json_stringn(line, n);
        if (!text || memchr(line, 0, n))
            rc = err_set(e, -EINVAL, "%.200s line %zu: no UTF-8 text", what, number);
        else
            p->at[p->n++] = pool_text(&p->pool, line, n);
        json_decref(text);
        return rc;
    }
    json_t *o = json_loadb(line, n, 0, &at);
    const json_t *prompt = json_object_get(o, "prompt");
    if (!o)
        rc = err_set(e, -EINVAL, "%.200s line %zu: %s", what, number, at.text);
    else if (!json_string_length(prompt))
        rc = err_set(e, -EINVAL, "%.200s line %zu: no \"prompt\", or an empty one", what, number);
    else
        p->at[p->n++] = pool_text(&p->pool, json_string_value(prompt), json_string_length(prompt));
    json_decref(o);
    return rc;
}

int prompts_parse(struct prompts *p, const char *text, size_t n, const char *what, struct err *e)
{
    size_t lines = 1, number = 0;
    int rc = 0;
    *p = (struct prompts){0};
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    p->at = pool_get(&p->pool, lines * sizeof(*p->at));
    while (n && !rc) {
        const char *end = memchr(text, '\n', n);
        size_t take = end ? (size_t)(end - text) : n;
        size_t line = take && text[take - 1] == '\r' ? take - 1 : take;
        number++;
        if (line)
            rc = take_line(p, text, line, number, what, e);
        text += take + (end != NULL);
        n -= take + (end != NULL);
    }
    if (!rc && !p->n)
        rc = err_set(e, -EINVAL, "%.200s has no prompts", what);
    return rc;
}

int prompts_read(struct prompts *p, const char *file, struct err *e)
{
    char *text;
    size_t n;
    int rc = file_read(file, (size_t)1 << 30, &text, &n, e);
    if (rc)
        return rc;
    rc = prompts_parse(p, text, n, file, e);
    free(text);
    return rc;
}

void prompts_free(struct prompts *p) { pool_free(&p->pool); }
