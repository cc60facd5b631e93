/* fuzz_request.c - any bytes as the body of a request to each path; what is read gets tokens of a
 * small vocabulary and, bytes of the body as its tokens, a reply of valid JSON. The first byte
 * chooses the path, the style of calls and whether the model reasons. */
#include "serve/api_read.h"
#include "serve/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* The 256 bytes as tokens, and one special one. */
static const struct tok *vocabulary(void)
{
    static struct tok *t;
    struct err e;
    if (t)
        return t;
    char text[16384], *at = text;
    at +=
        sprintf(at, "{\"added_tokens\": [{\"id\": 256, \"content\": \"<tool_call>\", \"special\": "
                    "true}], \"decoder\": {\"type\": \"ByteLevel\"}, \"pre_tokenizer\": {\"type\": "
                    "\"ByteLevel\", \"add_prefix_space\": false}, \"model\": {\"type\": \"BPE\", "
                    "\"merges\": [], \"vocab\": {");
    for (int b = 0, beyond = 256; b < 256; b++) { /* GPT-2's letters for bytes */
        bool plain = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
        at += sprintf(at, "%s\"\\u%04x\": %d", b ? ", " : "", plain ? b : beyond++, b);
    }
    sprintf(at, "}}}");
    must(!tok_load_json(text, strlen(text), "vocabulary", &t, &e));
    return t;
}

static void check_json(const char *s, size_t n)
{
    json_t *o = json_loadb(s, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, NULL);
    must(o);
    json_decref(o);
}

static void check_frames(const struct out *out)
{
    const char *at = out->at, *end;
    for (; (end = memmem(at, out->n - (size_t)(at - out->at), "\n\n", 2)); at = end + 2) {
        must(!memcmp(at, "data: ", 6));
        if (memcmp(at, "data: [DONE]", 12))
            check_json(at + 6, (size_t)(end - at) - 6);
    }
}

static void answer(const struct request *r, const struct api_model *m, const uint8_t *bytes,
                   size_t n)
{
    struct out out = {0};
    struct reply *p = reply_new(r, m, &(struct reply_head){.number = 1});
    for (int c = 0; c < request_choices(r); c++)
        for (size_t i = 0; i <= n; i++) {
            struct token_logprob likely = {.token = 'a' + (i < n ? bytes[i] % 26 : 0)};
            struct engine_event ev = {.token = i < n ? bytes[i] : -1,
                                      .prompt = -1,
                                      .finish = i < n ? RUNNING : FINISH_LENGTH,
                                      .logprobs = {r->n_top >= 0 ? 1 : -1, likely, {likely}}};
            reply_event(p, c, &ev, &out);
        }
    reply_end(p, &out);
    if (r->stream)
        check_frames(&out);
    else
        check_json(out.at, out.n);
    out_free(&out);
    reply_free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const names[] = {"m"};
    struct api_model m = {.name = names,
                          .n_names = 1,
                          .tok = vocabulary(),
                          .ctx = 1 << 20,
                          .n_vocab = 257,
                          .sampling = sampling_greedy,
                          .max_choices = 4};
    struct request r;
    struct api_error e;
    if (!n)
        return 0;
    enum api_kind kind = 1 << (bytes[0] & 3);
    const char *body = (const char *)bytes + 1;
    int rc = request_parse(kind, body, n - 1, &m, &r, &e);
    if (!rc && r.messages) { /* no template is rendered here */
        r.style = (enum tools_style)((bytes[0] >> 2) % 5);
        if (bytes[0] & 128)
            r.think = (struct think_words){"<think>", "</think>"};
        request_settle(&r, r.think.open);
    } else if (!rc) {
        rc = request_prompts(&r, &m, &e);
    }
    if (!rc && kind & (API_CHAT | API_COMPLETIONS))
        answer(&r, &m, bytes + 1, n - 1);
    request_free(&r);
    return 0;
}
