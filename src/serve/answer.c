/* answer.c - short answers: a body at once, and refusals as OpenAI words them. */
#include "serve/inside.h"

void reply_out(struct call *c, int status, struct out *out)
{
    call_reply(c, status, "application/json", out->at ? out->at : "", out->n);
    out_free(out);
}

/* A client that is refused for lack of room may come back when what waits has had its first
 * tokens. */
void refuse(struct server *s, struct call *c, const struct api_error *why)
{
    struct out out = {0};
    bool busy = why->status == 429, ending = why->status == 503;
    s->metrics.refused[busy ? 1 : ending ? 2 : 0]++;
    if (busy || ending) {
        char seconds[16];
        snprintf(seconds, sizeof(seconds), "%.0f", 1 + (busy ? fleet_ttft(s->fleet, 0) / 2 : 0));
        call_add_header(c, "Retry-After", seconds);
    }
    reply_error(&out, why);
    reply_out(c, why->status, &out);
}

PRINTF(5, 6)
void refuse_with(struct server *s, struct call *c, int status, const char *code, const char *fmt,
                 ...)
{
    struct api_error why = {.status = status};
    va_list args;
    snprintf(why.code, sizeof(why.code), "%s", code);
    va_start(args, fmt);
    vsnprintf(why.message, sizeof(why.message), fmt, args);
    va_end(args);
    refuse(s, c, &why);
}
