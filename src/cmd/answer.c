/* answer.c - see answer.h. */
#include "cmd/answer.h"

void answer_begin(struct answer *a, const struct tok *tok, const struct opt_list *stop,
                  const int *eos, int n_eos, FILE *out)
{
    *a = (struct answer){
        .tok = tok, .stop = stop, .eos = eos, .n_eos = n_eos, .out = out, .room = 256};
    a->detok = detok_new(tok, true);
    a->text = calloc(1, a->room);
    must(a->text);
}

static void append(struct answer *a, const char *s, size_t n)
{
    while (a->n + n + 1 > a->room) {
        a->room *= 2;
        a->text = realloc(a->text, a->room);
        must(a->text);
    }
    memcpy(a->text + a->n, s, n);
    a->n += n;
    a->text[a->n] = 0;
}

static void show(struct answer *a, size_t upto)
{
    if (a->out && upto > a->shown) {
        fwrite(a->text + a->shown, 1, upto - a->shown, a->out);
        fflush(a->out);
    }
    a->shown = upto > a->shown ? upto : a->shown;
}

/* How many of the last bytes may be the beginning of a stop text. */
static size_t doubtful(const struct answer *a)
{
    size_t most = 0;
    for (int i = 0; i < a->stop->n; i++) {
        const char *stop = a->stop->at[i];
        size_t n = strlen(stop);
        for (size_t k = n > a->n ? a->n : n; k > most; k--)
            if (!memcmp(a->text + a->n - k, stop, k)) {
                most = k;
                break;
            }
    }
    return most;
}

/* Cut at the first stop text, if one is there. Only what was not shown can hold it. */
static bool cut_at_stop(struct answer *a)
{
    char *first = NULL;
    for (int i = 0; i < a->stop->n; i++) {
        char *at = a->stop->at[i][0] ? strstr(a->text + a->shown, a->stop->at[i]) : NULL;
        if (at && (!first || at < first))
            first = at;
    }
    if (!first)
        return false;
    *first = 0;
    a->n = (size_t)(first - a->text);
    return true;
}

static void keep_id(struct answer *a, int id)
{
    if (a->n_id == a->id_room) {
        a->id_room = a->id_room ? 2 * a->id_room : 64;
        a->id = realloc(a->id, (size_t)a->id_room * sizeof(*a->id));
        must(a->id);
    }
    a->id[a->n_id++] = id;
}

bool answer_token(struct answer *a, int id)
{
    size_t n;
    keep_id(a, id);
    for (int i = 0; i < a->n_eos; i++)
        if (a->eos[i] == id) {
            a->finish = "stop";
            return false;
        }
    const char *piece = detok_next(a->detok, id, &n);
    append(a, piece, n);
    if (cut_at_stop(a)) {
        a->finish = "stop";
        show(a, a->n);
        return false;
    }
    show(a, a->n - doubtful(a));
    return true;
}

void answer_end(struct answer *a)
{
    size_t n;
    const char *rest = detok_flush(a->detok, &n);
    if (!a->finish)
        append(a, rest, n);
    show(a, a->n);
}

void answer_free(struct answer *a)
{
    detok_free(a->detok);
    free(a->text);
    free(a->id);
}
