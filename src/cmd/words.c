/* words.c - see words.h. */
#include "cmd/words.h"

static void choose_eos(struct words *w, const struct generation *g)
{
    int eos = tok_eos(w->tok);
    for (int i = 0; i < g->n_eos; i++)
        w->eos[w->n_eos++] = g->eos[i];
    if (eos >= 0)
        w->eos[w->n_eos++] = eos;
}

static int load_gguf(struct words *w, const char *file, bool raw, struct err *e)
{
    struct pool pool = {0};
    struct gguf_files f;
    int rc = gguf_files(file, &pool, &f, e);
    if (!rc && f.spm)
        rc = tok_load_spm(f.tokenizer, f.n_tokenizer, file, &w->tok, e);
    else if (!rc)
        rc = tok_load_json(f.tokenizer, f.n_tokenizer, file, &w->tok, e);
    if (!rc && f.template && !raw)
        rc = chat_new(f.template, f.bos ? f.bos : "", f.eos ? f.eos : "", &w->chat, e);
    pool_free(&pool);
    return rc;
}

static int load(struct words *w, const char *folder, bool raw, struct err *e)
{
    if (gguf_is(folder))
        return load_gguf(w, folder, raw, e);
    int rc = tok_load(folder, &w->tok, e);
    if (rc || raw)
        return rc;
    rc = chat_load(folder, &w->chat, e);
    return rc == -ENOENT ? 0 : rc;
}

int words_open(struct words *w, const struct opened *at, bool raw, struct err *e)
{
    *w = (struct words){0};
    int rc = load(w, at->folder, raw, e);
    if (rc)
        return rc;
    choose_eos(w, &at->generation);
    if (w->chat && !chat_renderer(w->chat, e))
        return -ENOTSUP;
    return 0;
}

void words_close(struct words *w)
{
    chat_free(w->chat);
    tok_free(w->tok);
}
