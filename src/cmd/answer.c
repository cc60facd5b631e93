/* answer.c - see answer.h. */
#include "cmd/answer.h"

void answer_begin(struct answer *a, const struct tok *tok, const struct opt_list *stop,
                  const int *eos, int n_eos, FILE *out)
{
    *a = (struct answer){.tok = tok, .stop = stop, .eos = eos, .n_eos = n_eos, .out = out};
    a->detok = detok_new(tok, true);
    buffer_add(&a->text, "", 0);
}

static void show(struct answer *a, size_t upto)
{
    if (a->out && upto > a->shown) {
        fwrite(a->text.at + a->shown, 1, upto - a->shown, a->out);
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
        for (size_t k = n > a->text.n ? a->text.n : n; k > most; k--)
            if (!memcmp(a->text.at + a->text.n - k, stop, k)) {
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
        char *at = a->stop->at[i][0] ? strstr(a->text.at + a->shown, a->stop->at[i]) : NULL;
        if (at && (!first || at < first))
            first = at;
    }
    if (!first)
        return false;
    *first = 0;
    a->text.n = (size_t)(first - a->text.at);
    return true;
}

static void keep_id(struct answer *a, int id)
{
    a->id = grow(a->id, &a->id_room, (size_t)a->n_id + 1, sizeof(*a->id));
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
    buffer_add(&a->text, piece, n);
    if (cut_at_stop(a)) {
        a->finish = "stop";
        show(a, a->text.n);
        return false;
    }
    show(a, a->text.n - doubtful(a));
    return true;
}

void answer_end(struct answer *a)
{
    size_t n;
    const char *rest = detok_flush(a->detok, &n);
    if (!a->finish)
        buffer_add(&a->text, rest, n);
    show(a, a->text.n);
}

void answer_free(struct answer *a)
{
    detok_free(a->detok);
    buffer_free(&a->text);
    free(a->id);
}
