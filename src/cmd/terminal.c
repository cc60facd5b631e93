/* terminal.c - see terminal.h. Line editing and history by libedit where it was found at build
 * time, plain lines otherwise. */
#include "cmd/terminal.h"
#include "base/buffer.h"

#include <signal.h>
#include <unistd.h>

#ifdef TANDEM_LIBEDIT
#include <histedit.h>
#endif

struct terminal {
    struct buffer text;
    char *line;
    size_t line_room;
    const char *prompt;
#ifdef TANDEM_LIBEDIT
    EditLine *edit;
    History *history;
#endif
};

#ifdef TANDEM_LIBEDIT

static char *show_prompt(EditLine *edit)
{
    struct terminal *t;
    el_get(edit, EL_CLIENTDATA, &t);
    return (char *)(uintptr_t)t->prompt;
}

static void open_editor(struct terminal *t)
{
    HistEvent event;
    t->history = history_init();
    t->edit = el_init("tandem", stdin, stderr, stderr);
    must(t->history && t->edit);
    history(t->history, &event, H_SETSIZE, 1000);
    el_set(t->edit, EL_CLIENTDATA, t);
    el_set(t->edit, EL_PROMPT, show_prompt);
    el_set(t->edit, EL_EDITOR, "emacs");
    el_set(t->edit, EL_SIGNAL, 0);
    el_set(t->edit, EL_HIST, history, t->history);
}

static void close_editor(struct terminal *t)
{
    el_end(t->edit);
    history_end(t->history);
}

/* One line with its line feed; NULL with errno EINTR after Ctrl-C. */
static const char *read_line(struct terminal *t)
{
    int n = 0;
    HistEvent event;
    errno = 0;
    const char *line = el_gets(t->edit, &n);
    if (line && n > 1)
        history(t->history, &event, H_ENTER, line);
    return n > 0 ? line : NULL;
}

#else

static void open_editor(struct terminal *t) { (void)t; }
static void close_editor(struct terminal *t) { (void)t; }

static const char *read_line(struct terminal *t)
{
    fputs(t->prompt, stderr);
    fflush(stderr);
    errno = 0;
    clearerr(stdin);
    return getline(&t->line, &t->line_room, stdin) > 0 ? t->line : NULL;
}

#endif

struct terminal *terminal_open(void)
{
    struct terminal *t = calloc(1, sizeof(*t));
    must(t);
    open_editor(t);
    /* Ctrl-C must interrupt the reading of a line, not restart it. */
    struct sigaction act;
    sigaction(SIGINT, NULL, &act);
    act.sa_flags &= ~SA_RESTART;
    sigaction(SIGINT, &act, NULL);
    return t;
}

/* One line appended without its end. Returns false at the end of input. */
static bool take_line(struct terminal *t, const char *prompt, size_t *n)
{
    t->prompt = prompt;
    const char *line = read_line(t);
    if (!line)
        return false;
    *n = strcspn(line, "\n");
    buffer_add(&t->text, line, *n);
    return true;
}

/* Read one message. 1: there is one, 0: the end, -1: Ctrl-C. */
static int read_message(struct terminal *t)
{
    size_t n;
    t->text.n = 0;
    if (!take_line(t, "> ", &n))
        return errno == EINTR ? -1 : 0;
    if (!strcmp(t->text.at, "\"\"\"")) {
        t->text.n = 0;
        buffer_add(&t->text, "", 0);
        while (take_line(t, "... ", &n)) {
            if (!strcmp(t->text.at + t->text.n - n, "\"\"\"")) {
                t->text.n -= n;
                buffer_add(&t->text, "", 0);
                return 1;
            }
            buffer_add(&t->text, "\n", 1);
        }
        return errno == EINTR ? -1 : 0;
    }
    while (t->text.n && t->text.at[t->text.n - 1] == '\\') {
        t->text.at[t->text.n - 1] = '\n';
        if (!take_line(t, "... ", &n))
            return errno == EINTR ? -1 : 0;
    }
    return 1;
}

const char *terminal_message(struct terminal *t)
{
    bool warned = false;
    for (;;) {
        int got = read_message(t);
        if (got == 1 && strspn(t->text.at, " \t\n") < t->text.n)
            return t->text.at;
        if (got == 1)
            continue;
        fputc('\n', stderr);
        if (got == 0 || warned)
            return NULL;
        fputs("Ctrl-C again or Ctrl-D to leave\n", stderr);
        warned = true;
    }
}

void terminal_close(struct terminal *t)
{
    close_editor(t);
    buffer_free(&t->text);
    free(t->line);
    free(t);
}

char *terminal_all(FILE *f)
{
    struct buffer all = {0};
    char block[4096];
    buffer_add(&all, "", 0);
    for (size_t n; (n = fread(block, 1, sizeof(block), f)) > 0;)
        buffer_add(&all, block, n);
    while (all.n && all.at[all.n - 1] == '\n')
        all.at[--all.n] = 0;
    return all.at;
}
