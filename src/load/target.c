/* target.c - see target.h. */
#include "load/target.h"
#include "base/json.h"

enum { REPLY_MOST = 4 << 20, PROBE_FEW = 8 };

/* ------------------------------------------------------------------------------- where it is */

static int set_base(struct target *t, const char *url, struct err *e)
{
    if (!strncmp(url, "unix:", 5)) {
        if (snprintf(t->socket, sizeof(t->socket), "%s", url + 5) >= (int)sizeof(t->socket))
            return err_set(e, -EINVAL, "--url %.200s: the path of a socket has at most %zu bytes",
                           url, sizeof(t->socket) - 1);
        url = "http://localhost";
    }
    size_t n = strlen(url);
    while (n && url[n - 1] == '/')
        n--;
    bool has_version = n > 3 && !strncmp(url + n - 3, "/v1", 3);
    bool http = !strncmp(url, "http://", 7) || !strncmp(url, "https://", 8);
    if (!http || n + 4 > sizeof(t->base))
        return err_set(e, -EINVAL,
                       "--url %.200s: an address such as http://127.0.0.1:8000 or unix:/run/t.sock "
                       "is needed",
                       url);
    snprintf(t->base, sizeof(t->base), "%.*s%s", (int)n, url, has_version ? "" : "/v1");
    return 0;
}

static int read_key(struct target *t, const char *file, struct err *e)
{
    char *text, *at, header[600];
    size_t n;
    int rc = file_read(file, 1 << 20, &text, &n, e);
    if (rc)
        return rc;
    for (at = text; *at == '#' || strspn(at, " \t\r\n");)
        at += *at == '#' ? strcspn(at, "\n") : strspn(at, " \t\r\n");
    size_t length = strcspn(at, " \t\r\n");
    if (!length || length > 512)
        rc = err_set(e, -EINVAL, "%.200s has no API key (of at most 512 bytes)", file);
    snprintf(header, sizeof(header), "Authorization: Bearer %.*s", (int)min_size(length, 512), at);
    if (!rc)
        t->headers = curl_slist_append(t->headers, header);
    free(text);
    return rc;
}

int target_open(struct target *t, const char *url, const char *key_file, double timeout_s,
                struct err *e)
{
    *t = (struct target){.timeout_ms = (long)(timeout_s * 1e3)};
    must(!curl_global_init(CURL_GLOBAL_DEFAULT));
    t->headers = curl_slist_append(NULL, "Content-Type: application/json");
    t->headers = curl_slist_append(t->headers, "Expect:"); /* curl would wait for a "100" */
    int rc = set_base(t, url, e);
    return rc || !key_file ? rc : read_key(t, key_file, e);
}

void target_close(struct target *t)
{
    curl_slist_free_all(t->headers);
    curl_global_cleanup();
}

/* ------------------------------------------------------------------------------- requests */

void target_prepare(const struct target *t, CURL *easy, const char *path, const char *body)
{
    char url[640];
    snprintf(url, sizeof(url), "%s%s", t->base, path);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, t->timeout_ms);
    if (*t->socket)
        curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, t->socket);
    if (body) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    }
}

struct reply {
    char *at;
    size_t n;
};

static size_t take(char *bytes, size_t one, size_t n, void *arg)
{
    struct reply *r = arg;
    (void)one;
    if (r->n + n > REPLY_MOST)
        return 0;
    r->at = realloc(r->at, r->n + n);
    must(r->at || !n);
    memcpy(r->at + r->n, bytes, n);
    r->n += n;
    return n;
}

/* The reply of status 200 as JSON. */
static json_t *read_reply(const struct target *t, const char *path, long status,
                          const struct reply *r, struct err *e)
{
    char what[700];
    snprintf(what, sizeof(what), "%.300s%s", t->base, path);
    if (status == 200)
        return json_parse(r->at ? r->at : "", r->n, what, e);
    json_t *o = json_loadb(r->at ? r->at : "", r->n, 0, NULL);
    const char *why = json_string_value(json_object_get(json_object_get(o, "error"), "message"));
    err_set(e, -EPROTO, "%s: status %ld%s%.200s", what, status, why ? ": " : "", why ? why : "");
    json_decref(o);
    return NULL;
}

json_t *target_ask(const struct target *t, const char *path, const char *body, struct err *e)
{
    struct reply r = {0};
    json_t *o = NULL;
    long status = 0;
    CURL *easy = curl_easy_init();
    must(easy);
    target_prepare(t, easy, path, body);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &r);
    CURLcode code = curl_easy_perform(easy);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (code)
        err_set(e, -ECONNREFUSED, "%s%s%s: %s; is a server running there?",
                *t->socket ? t->socket : "", *t->socket ? " " : "", t->base,
                curl_easy_strerror(code));
    else
        o = read_reply(t, path, status, &r, e);
    curl_easy_cleanup(easy);
    free(r.at);
    return o;
}

int target_model(const struct target *t, char *name, struct err *e)
{
    json_t *o = target_ask(t, "/models", NULL, e);
    if (!o)
        return -EPROTO;
    const json_t *first = json_array_get(json_object_get(o, "data"), 0);
    const char *id = json_string_value(json_object_get(first, "id"));
    int rc = 0;
    if (!id || strlen(id) > 255)
        rc = err_set(e, -EPROTO, "%.300s/models names no model; give one with --model", t->base);
    else
        strcpy(name, id);
    json_decref(o);
    return rc;
}

const char *target_path(bool chat) { return chat ? "/chat/completions" : "/completions"; }

/* ------------------------------------------------------------------------------- tokens of words
 */

/* The server's count of tokens of a prompt of words: all of the list `rounds` times, and `more`. */
static int prompt_tokens(const struct target *t, const struct workload *w, int rounds, int more,
                         double *to, struct err *e)
{
    char text[(WORDS_LIST + PROBE_FEW) * (WORDS_LONGEST + 1) + 1];
    words_all(text, text, rounds, more);
    char *body = workload_probe(w, text);
    json_t *o = target_ask(t, target_path(w->chat), body, e);
    free(body);
    if (!o)
        return -EPROTO;
    const json_t *usage = json_object_get(o, "usage");
    *to = json_number_value(json_object_get(usage, "prompt_tokens"));
    json_decref(o);
    return *to >= 1 ? 0
                    : err_set(e, -EPROTO,
                              "%.300s does not say how many tokens prompts have; "
                              "give --prompts FILE",
                              t->base);
}

int target_probe(const struct target *t, struct workload *w, struct err *e)
{
    double few, many;
    int rc = prompt_tokens(t, w, 0, PROBE_FEW, &few, e);
    if (!rc)
        rc = prompt_tokens(t, w, 1, PROBE_FEW, &many, e);
    if (rc)
        return rc;
    if (many - few < WORDS_LIST / 2.0)
        return err_set(e, -EPROTO, "%.300s counts %.0f tokens for %d words, which cannot be",
                       t->base, many - few, WORDS_LIST);
    w->rate.tok_per_word = (many - few) / WORDS_LIST;
    w->rate.tok_around = few - PROBE_FEW * w->rate.tok_per_word;
    return 0;
}
