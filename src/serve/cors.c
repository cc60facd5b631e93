/* cors.c - which pages' scripts may ask, for browsers: the CORS protocol of fetch.spec.whatwg.org.
 */
#include "serve/inside.h"

static bool is_allowed(const struct server *s, const char *origin)
{
    for (int i = 0; i < s->opts.n_origin; i++)
        if (!strcmp(s->opts.origin[i], "*") || !strcmp(s->opts.origin[i], origin))
            return true;
    return false;
}

bool cors(struct server *s, struct call *c)
{
    const char *origin = call_header(c, "Origin");
    if (!origin || !is_allowed(s, origin))
        return false;
    call_add_header(c, "Access-Control-Allow-Origin", origin);
    call_add_header(c, "Vary", "Origin");
    call_add_header(c, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    if (call_method(c) != HTTP_OPTIONS || !call_header(c, "Access-Control-Request-Method"))
        return false;
    const char *asked = call_header(c, "Access-Control-Request-Headers");
    call_add_header(c, "Access-Control-Allow-Methods", "GET, POST, HEAD");
    call_add_header(c, "Access-Control-Allow-Headers", asked ? asked : "Authorization");
    call_add_header(c, "Access-Control-Max-Age", "3600");
    call_reply(c, 204, "text/plain", "", 0);
    return true;
}
