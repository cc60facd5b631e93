/* plan.c - `tandem plan`: search a layout for a load, or show one; the article's audit. */
#include "cmd/plan.h"
#include "cmd/device.h"
#include "predict/article.h"

#include <unistd.h>

/* ------------------------------------------------------------------------------- files */

static FILE *open_output(const char *path, struct err *e)
{
    FILE *f = fopen(path, "we");
    if (!f)
        err_set(e, -errno, "cannot write %.200s: %s", path, strerror(errno));
    return f;
}

static int close_output(FILE *f, const char *path, struct err *e)
{
    bool bad = ferror(f);
    if (fclose(f) || bad)
        return err_set(e, -EIO, "cannot write %.200s: is the disk full?", path);
    return 0;
}

static int write_plan(const struct plan *p, const char *path, struct err *e)
{
    FILE *f = open_output(path, e);
    if (!f)
        return -EIO;
    json_t *o = plan_to_json(p);
    json_dumpf(o, f, JSON_INDENT(2));
    putc('\n', f);
    json_decref(o);
    return close_output(f, path, e);
}

static int write_files(const struct options *o, const struct answer *a, struct err *e)
{
    int rc = o->output ? write_plan(&a->facts->plan, o->output, e) : 0;
    if (!rc && o->svg) {
        FILE *f = open_output(o->svg, e);
        if (!f)
            return -EIO;
        explain_svg(f, a);
        rc = close_output(f, o->svg, e);
    }
    if (!rc && o->explain && strcmp(o->explain, "-") != 0) {
        FILE *f = open_output(o->explain, e);
        if (!f)
            return -EIO;
        explain_write(f, a, true);
        rc = close_output(f, o->explain, e);
    }
    return rc;
}

/* ------------------------------------------------------------------------------- the search */

static void print_json(json_t *o)
{
    json_dumpf(o, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(o);
}

static void print_answer(const struct options *o, const struct answer *a)
{
    if (o->json)
        print_json(explain_json(a));
    else
        explain_write(stdout, a, o->explain && !strcmp(o->explain, "-"));
}

static void say(const char *what)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%s", what);
}

static int choose(const struct options *o, struct err *e)
{
    struct asked *asked = calloc(1, sizeof(*asked));
    struct facts *facts = calloc(1, sizeof(*facts));
    struct search s;
    must(asked && facts);
    int rc = plan_ask_of(o, asked, e);
    if (!rc) {
        const struct question *q = &asked->question;
        say("searching layouts ...");
        rc = search(q, &s, e);
        if (!rc) {
            say("simulating the best ...");
            facts_simulate(q, &s, facts, 1);
            say("what would change it ...");
            facts_of(q, &s, facts);
            say("");
            struct answer a = {asked->model, q, &s, facts, &asked->assumed, o->pipeline};
            rc = write_files(o, &a, e);
            if (!rc)
                print_answer(o, &a);
        }
        say("");
        search_free(&s);
    }
    free(asked);
    free(facts);
    return rc;
}

/* ------------------------------------------------------------------------------- the article */

static void print_row(const struct article_row *r)
{
    printf("%3d  %-6s  %s\n             article %s; Tandem %s [%s%s%s]\n", r->number,
           verdict_name(r->verdict), r->claim, r->said, r->text, r->formula,
           *r->formula ? "; " : "", r->source);
    if (*r->why)
        printf("             %s\n", r->why);
}

static int article(const struct options *o, struct err *e)
{
    struct article_row *row = calloc(ARTICLE_ROWS, sizeof(*row));
    must(row);
    int rc = article_rows(row, e), n[VERDICT_COUNT] = {0};
    for (int i = 0; !rc && i < ARTICLE_ROWS; i++) {
        n[row[i].verdict]++;
        if (!o->json)
            print_row(&row[i]);
    }
    if (!rc && o->json)
        print_json(article_to_json(row));
    else if (!rc)
        printf(
            "\n%d right, %d partly, %d wrong. Llama-3-70B in bf16; times are of steps without the "
            "host.\n",
            n[RIGHT], n[PARTLY], n[WRONG]);
    free(row);
    return rc;
}

int cmd_plan(const struct options *o, struct err *e)
{
    const bool load = o->given.plan_rate || o->given.plan_concurrency || o->given.plan_trace;
    if (o->article)
        return article(o, e);
    if (o->size)
        return plan_size(o, e);
    if (o->check)
        return plan_check_deployment(o, e);
    if (o->given.plan_hardware || device_numbers(o) || load)
        return choose(o, e);
    if (o->explain || o->svg || o->output || o->given.ttft || o->given.plan_tpot)
        return err_set(
            e, CMD_USAGE,
            "plan: these options search a layout: say for which machine (--hardware) and "
            "load (--rate, --concurrency or --trace)");
    return plan_layout(o, e);
}
