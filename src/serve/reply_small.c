/* reply_small.c - errors, and the bodies of /tokenize, /detokenize and /v1/models. */
#include "serve/reply.h"

void reply_error(struct out *o, const struct api_error *e)
{
    const char *type = e->status >= 500   ? "server_error"
                       : e->status == 401 ? "authentication_error"
                       : e->status == 429 ? "rate_limit_error"
                                          : "invalid_request_error";
    out_str(o, "{\"error\":{");
    out_key(o, "message");
    out_string(o, e->message);
    out_key(o, "type");
    out_string(o, type);
    out_key(o, "param");
    out_string(o, e->param[0] ? e->param : NULL);
    out_key(o, "code");
    out_string(o, e->code[0] ? e->code : NULL);
    out_str(o, "}}");
}

void reply_error_frame(struct out *o, const struct api_error *e)
{
    out_str(o, "data: ");
    reply_error(o, e);
    out_str(o, "\n\n");
}

void reply_tokenize(struct out *o, const struct request *r, const struct api_model *m)
{
    const struct api_prompt *p = r->prompt;
    out_str(o, "{");
    out_key(o, "count");
    out_int(o, p->n);
    out_key(o, "max_model_len");
    out_int(o, m->ctx);
    out_key(o, "tokens");
    out_str(o, "[");
    for (int i = 0; i < p->n; i++) {
        out_item(o);
        out_int(o, p->tok[i]);
    }
    out_str(o, "]");
    out_key(o, "token_strs");
    out_str(o, r->return_strs ? "[" : "null");
    for (int i = 0; r->return_strs && i < p->n; i++) {
        size_t n = 0;
        const char *s = tok_bytes(m->tok, p->tok[i], &n);
        out_item(o);
        out_text(o, s, s ? n : 0);
    }
    out_str(o, r->return_strs ? "]}" : "}");
}

void reply_detokenize(struct out *o, const struct request *r, const struct api_model *m)
{
    char *text = tok_decode(m->tok, r->prompt->tok, (size_t)r->prompt->n, false);
    must(text);
    out_str(o, "{");
    out_key(o, "prompt");
    out_string(o, text);
    out_str(o, "}");
    free(text);
}

void reply_models(struct out *o, const struct api_model *m, long long created)
{
    out_str(o, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < m->n_names; i++) {
        out_item(o);
        out_str(o, "{");
        out_key(o, "id");
        out_string(o, m->name[i]);
        out_fmt(o,
                ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"tandem\","
                "\"max_model_len\":%d}",
                created, m->ctx);
    }
    out_str(o, "]}");
}
