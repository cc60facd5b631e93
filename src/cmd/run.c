/* run.c - `tandem run`: one answer, or a chat in the terminal. See options.def for what it takes.
 */
#include "cmd/answer.h"
#include "cmd/cmd.h"
#include "cmd/experts.h"
#include "cmd/open.h"
#include "cmd/progress.h"
#include "cmd/report.h"
#include "cmd/terminal.h"
#include "cmd/words.h"

#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct run {
    const struct options *o;
    struct opened at;
    struct words words;
    struct team *team;
    struct session *session;
    struct sampling sampling;
    json_t *messages;
    struct session_stats stats;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted = 1;
}

/* ------------------------------------------------------------------------------- starting */

/* What the user asked for over what the model recommends. */
static int choose_sampling(struct run *r, struct err *e)
{
    const struct options *o = r->o;
    const struct generation *g = &r->at.generation;
    struct sampling *s = &r->sampling;
    bool sample = g->sample || (o->given.temperature && o->temperature > 0);
    *s = (struct sampling){.temperature = sample ? g->temperature : 0,
                           .top_p = g->top_p,
                           .min_p = g->min_p,
                           .repetition = g->repetition_penalty,
                           .presence = (float)o->presence_penalty,
                           .frequency = (float)o->frequency_penalty,
                           .top_k = g->top_k,
                           .seed = o->seed};
    if (o->given.temperature)
        s->temperature = (float)o->temperature;
    if (o->given.top_p)
        s->top_p = (float)o->top_p;
    if (o->given.top_k)
        s->top_k = o->top_k;
    if (o->given.min_p)
        s->min_p = (float)o->min_p;
    if (o->given.repeat_penalty)
        s->repetition = (float)o->repeat_penalty;
    return sampling_check(s, e);
}

static int start(struct run *r, struct err *e)
{
    struct progress progress = progress_begin(r->o->quiet);
    struct team_opts opts = {.isa = r->at.isa,
                             .progress = progress_show,
                             .arg = &progress,
                             .packed = r->at.packed,
                             .gpus = open_gpus(&r->at),
                             .host = &r->at.host,
                             .patience_s = r->o->patience,
                             .keep_logits = r->o->logits != NULL};
    if (r->o->logits)
        r->at.plan.max_out = r->at.plan.max_tok;
    int rc = expert_cache_ask(&opts.expert_cache, r->o, &r->at, e);
    if (!rc)
        rc = team_start(&r->team, &r->at.plan, r->at.store, &opts, e);
    progress_end(&progress);
    if (!rc)
        r->session = session_new(r->team, &r->at.plan);
    return rc;
}

static void close_run(struct run *r)
{
    session_free(r->session);
    team_stop(r->team);
    words_close(&r->words);
    json_decref(r->messages);
    open_close(&r->at);
}

/* ------------------------------------------------------------------------------- prompts */

static void say(struct run *r, const char *role, const char *text)
{
    json_array_append_new(r->messages, json_pack("{s:s, s:s}", "role", role, "content", text));
}

/* The conversation so far as token ids. */
static int chat_ids(struct run *r, int **ids, size_t *n, struct err *e)
{
    char *text = NULL;
    json_t *request = json_pack("{s:O, s:b}", "messages", r->messages, "add_generation_prompt", 1);
    char *json = json_dumps(request, JSON_COMPACT);
    must(json);
    int rc = chat_render(r->words.chat, json, &text, e);
    free(json);
    json_decref(request);
    if (!rc)
        rc = tok_encode(r->words.tok, text, strlen(text), TOK_PARSE, ids, n, e);
    free(text);
    return rc;
}

static int listed_ids(const char *text, int **ids, size_t *n, struct err *e)
{
    *ids = malloc((strlen(text) / 2 + 1) * sizeof(**ids));
    must(*ids);
    for (char *end; *text; text = end) {
        long id = strtol(text, &end, 10);
        if (end == text && strspn(text, " ,\n\t") == strlen(text))
            break;
        if (end == text || id < 0 || id > INT32_MAX)
            return err_set(e, CMD_USAGE, "--ids: token ids separated by blanks are needed");
        (*ids)[(*n)++] = (int)id;
        end += strspn(end, " ,\n\t");
    }
    return 0;
}

static int check_utf8(const char *text, struct err *e)
{
    json_t *s = json_string(text);
    if (!s)
        return err_set(e, -EILSEQ, "the prompt is not valid UTF-8: convert it first");
    json_decref(s);
    return 0;
}

/* The prompt as ids: a list, raw text, or a turn of the chat. */
static int prompt_ids(struct run *r, const char *prompt, int **ids, size_t *n, struct err *e)
{
    *ids = NULL, *n = 0;
    if (r->o->ids)
        return listed_ids(r->o->ids, ids, n, e);
    int rc = check_utf8(prompt, e);
    if (rc)
        return rc;
    if (!r->words.chat)
        return tok_encode(r->words.tok, prompt, strlen(prompt), TOK_SPECIAL, ids, n, e);
    say(r, "user", prompt);
    return chat_ids(r, ids, n, e);
}

/* ------------------------------------------------------------------------------- answers */

static bool on_token(void *arg, int token) { return answer_token(arg, token) && !interrupted; }

static int answer(struct run *r, const char *prompt, struct answer *a, struct err *e)
{
    int *ids, most = r->o->given.max_tokens ? r->o->max_tokens : INT32_MAX;
    size_t n;
    interrupted = 0;
    answer_begin(a, r->words.tok, &r->o->stop, r->words.eos, r->words.n_eos,
                 r->o->json ? NULL : stdout);
    int rc = prompt_ids(r, prompt, &ids, &n, e);
    if (!rc)
        rc = session_run(r->session, ids, (int)n, most, &r->sampling, on_token, a, &r->stats, e);
    free(ids);
    if (rc)
        return rc;
    answer_end(a);
    if (r->words.chat && !r->o->ids)
        say(r, "assistant", a->text.at);
    return 0;
}

static void print_json(struct run *r, const struct answer *a)
{
    json_t *o = report_json(&r->at.plan, r->team, &r->stats), *ids = json_array();
    for (int i = 0; i < a->n_id; i++)
        json_array_append_new(ids, json_integer(a->id[i]));
    json_object_set_new(o, "text", json_stringn_nocheck(a->text.at, a->text.n));
    json_object_set_new(o, "ids", ids);
    json_object_set_new(o, "finish", json_string(a->finish ? a->finish : "length"));
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static int answer_once(struct run *r, const char *prompt, struct err *e)
{
    struct answer a;
    int rc = answer(r, prompt, &a, e);
    if (!rc && r->o->json)
        print_json(r, &a);
    if (!rc && !r->o->json)
        putchar('\n');
    fflush(stdout);
    if (!rc && !r->o->quiet && !r->o->json)
        report_text(stderr, &r->at, r->team, &r->stats);
    answer_free(&a);
    return !rc && interrupted ? -EINTR : rc;
}

static int write_logits(struct run *r, const char *prompt, struct err *e)
{
    int *ids;
    size_t n, words = (size_t)r->at.plan.model.n_vocab;
    int rc = prompt_ids(r, prompt, &ids, &n, e);
    float *to = rc ? NULL : malloc(n * words * sizeof(*to));
    FILE *f = NULL;
    if (!rc)
        rc = to ? session_logits(r->session, ids, (int)n, to, e)
                : err_set(e, -ENOMEM, "out of memory for %zu rows of logits", n);
    if (!rc && (!(f = fopen(r->o->logits, "wb")) || fwrite(to, words * sizeof(*to), n, f) != n))
        rc = err_set(e, -EIO, "%s: %s", r->o->logits, strerror(errno));
    if (f && fclose(f) && !rc)
        rc = err_set(e, -EIO, "%s: %s", r->o->logits, strerror(errno));
    free(ids);
    free(to);
    return rc;
}

/* ------------------------------------------------------------------------------- the chat */

static void forget(struct run *r)
{
    json_array_clear(r->messages);
    if (r->o->system)
        say(r, "system", r->o->system);
}

/* A line that starts with '/'. Returns false to leave. */
static bool command(struct run *r, const char *line)
{
    float t;
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit"))
        return false;
    if (!strcmp(line, "/clear")) {
        forget(r);
    } else if (!strncmp(line, "/system ", 8)) {
        json_array_clear(r->messages);
        say(r, "system", line + 8);
    } else if (sscanf(line, "/temperature %f", &t) == 1 && t >= 0 && t <= 100) {
        r->sampling.temperature = t;
    } else if (!strcmp(line, "/stats")) {
        report_text(stderr, &r->at, r->team, &r->stats);
    } else {
        fputs("/clear            forget the conversation\n"
              "/system TEXT      start again with this system prompt\n"
              "/temperature X    0 takes the likeliest token\n"
              "/stats            what the ranks held and did\n"
              "/exit             leave, as Ctrl-D does\n"
              "A line that ends in \\ goes on; lines between \"\"\" are one message; Ctrl-C stops "
              "an answer.\n",
              stderr);
    }
    return true;
}

/* Errors of one turn are shown and the chat goes on, unless the ranks are gone. */
static int converse(struct run *r, struct err *e)
{
    struct terminal *t = terminal_open();
    const char *line;
    int rc = 0;
    while (rc != -EIO && (line = terminal_message(t))) {
        struct answer a;
        if (line[0] == '/') {
            if (!command(r, line))
                break;
            continue;
        }
        size_t before = json_array_size(r->messages);
        rc = answer(r, line, &a, e);
        putchar('\n');
        fflush(stdout);
        answer_free(&a);
        while (rc && json_array_size(r->messages) > before)
            json_array_remove(r->messages, before);
        if (rc && rc != -EIO)
            fprintf(stderr, "tandem: %s\n", e->text);
    }
    terminal_close(t);
    return rc == -EIO ? rc : 0;
}

/* ------------------------------------------------------------------------------- the verb */

static bool is_model(const char *word)
{
    struct stat st;
    return stat(word, &st) == 0 && (S_ISDIR(st.st_mode) || gguf_is(word));
}

static int work(struct run *r, const char *prompt, struct err *e)
{
    signal(SIGINT, on_interrupt);
    forget(r);
    if (r->o->logits)
        return write_logits(r, prompt ? prompt : "", e);
    if (prompt || r->o->ids)
        return answer_once(r, prompt, e);
    if (isatty(STDIN_FILENO))
        return converse(r, e);
    char *text = terminal_all(stdin);
    int rc = answer_once(r, text, e);
    free(text);
    return rc;
}

int cmd_run(const struct options *o, struct err *e)
{
    struct run r = {.o = o, .messages = json_array()};
    bool named = o->n_word == 2 || (o->n_word == 1 && is_model(o->word[0]));
    const char *prompt = o->n_word > named ? o->word[named] : NULL;
    int rc = open_model(&r.at, o, named ? o->word[0] : NULL, e);
    for (int i = 0; !rc && !o->quiet && i < r.at.notes.n; i++)
        fprintf(stderr, "tandem: note: %s\n", r.at.notes.text[i]);
    if (!rc)
        rc = choose_sampling(&r, e);
    if (!rc)
        rc = words_open(&r.words, &r.at, r.o->raw, e);
    if (!rc)
        rc = start(&r, e);
    if (!rc)
        rc = work(&r, prompt, e);
    close_run(&r);
    return rc;
}
