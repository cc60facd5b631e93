/* help.c - `tandem help`, `--help`, the manual page and the bash completion. See help.h. */
#include "cmd/help.h"
#include "cmd/cmd.h"

enum { WIDTH = 80, HELP_COLUMN = 30 };

static bool takes(int verb, const struct opt_row *row) { return row->verbs >> verb & 1; }

/* Text broken at blanks; lines after the first begin at column indent, as does the cursor. */
static void wrap(FILE *to, int indent, const char *text)
{
    int at = indent;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at > indent && at + 1 + n > WIDTH) {
            fprintf(to, "\n%*s", indent, "");
            at = indent;
        } else if (at > indent) {
            putc(' ', to);
            at++;
        }
        at += fprintf(to, "%.*s", n, text);
        text += n + (text[n] == ' ');
    }
    putc('\n', to);
}

/* Every line of text behind indent blanks. */
static void lines(FILE *to, const char *indent, const char *text)
{
    while (*text) {
        int n = (int)strcspn(text, "\n");
        fprintf(to, "%s%.*s\n", indent, n, text);
        text += n + (text[n] == '\n');
    }
}

static void option(FILE *to, const struct opt_row *row)
{
    char left[96], help[512];
    int n = snprintf(left, sizeof(left), "  %c%c%c --%s%s%s", row->letter ? '-' : ' ',
                     row->letter ? row->letter : ' ', row->letter ? ',' : ' ', row->name,
                     *row->value ? " " : "", row->value);
    snprintf(help, sizeof(help), "%s%s%s%s", row->help, *row->fallback ? " [" : "", row->fallback,
             *row->fallback ? "]" : "");
    if (n >= HELP_COLUMN)
        fprintf(to, "%s\n%*s", left, HELP_COLUMN, "");
    else
        fprintf(to, "%-*s", HELP_COLUMN, left);
    wrap(to, HELP_COLUMN, help);
}

void help_verb(FILE *to, enum verb verb)
{
    const struct verb_row *v = &verb_rows[verb];
    fprintf(to, "Usage: tandem %s [OPTION]...%s%s\n\n", v->name, *v->words ? " " : "", v->words);
    wrap(to, 0, v->about);
    fprintf(to, "\nOptions:\n");
    for (int i = 0; i < opt_row_count; i++)
        if (takes((int)verb, &opt_rows[i]))
            option(to, &opt_rows[i]);
    fprintf(to, "  -h, --help                  show this help\n\nExample:\n");
    lines(to, "  ", v->example);
}

void help_overview(FILE *to)
{
    fprintf(to, "tandem - one language model, split over several ranks, one answer\n\n"
                "Usage: tandem VERB [OPTION]... [ARGUMENT]...\n\nVerbs:\n");
    for (int v = 0; v < VERB_COUNT; v++)
        fprintf(to, "  %-17s %s\n", verb_rows[v].name, verb_rows[v].summary);
    fprintf(to, "\n`tandem VERB --help` shows the options of a verb.\n\nExample:\n");
    lines(to, "  ", verb_rows[VERB_RUN].example);
}

/* ------------------------------------------------------------------------------- manual page */

/* Text for roff: no line begins with a control character, '-' stays a hyphen-minus, a list of
 * choices may be broken. */
static void roff(FILE *to, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", to);
    for (; *text; text++)
        if (*text == '\\')
            fputs("\\e", to);
        else if (*text == '-')
            fputs("\\-", to);
        else if (*text == '|')
            fputs("|\\:", to);
        else
            putc(*text, to);
}

static void roff_option(FILE *to, const struct opt_row *row)
{
    fputs(".TP\n", to);
    if (row->letter)
        fprintf(to, "\\fB\\-%c\\fR, ", row->letter);
    fputs("\\fB\\-\\-", to);
    roff(to, row->name);
    fputs(*row->value ? "\\fR \\fI" : "\\fR", to);
    roff(to, row->value);
    fputs(*row->value ? "\\fR\n" : "\n", to);
    roff(to, row->help);
    if (*row->fallback) {
        fputs(" [", to);
        roff(to, row->fallback);
        putc(']', to);
    }
    putc('\n', to);
}

static void roff_verb(FILE *to, int verb)
{
    const struct verb_row *v = &verb_rows[verb];
    fputs(".SS tandem ", to);
    roff(to, v->name);
    fprintf(to, " %s\n", v->words);
    roff(to, v->about);
    putc('\n', to);
    for (int i = 0; i < opt_row_count; i++)
        if (takes(verb, &opt_rows[i]))
            roff_option(to, &opt_rows[i]);
    fputs(".PP\nExample:\n.PP\n.nf\n.RS 4\n", to);
    roff(to, v->example);
    fputs("\n.RE\n.fi\n", to);
}

void help_man(FILE *to)
{
    fprintf(to, ".TH TANDEM 1 \"\" \"tandem %s\" \"User commands\"\n.SH NAME\n", TANDEM_VERSION);
    fputs(
        "tandem \\- one language model, split over several ranks, one answer\n"
        ".SH SYNOPSIS\n.B tandem\n.I VERB\n[\\fIOPTION\\fR]... [\\fIARGUMENT\\fR]...\n"
        ".SH DESCRIPTION\n"
        "Runs a language model in the Hugging Face format split over several ranks: every layer\n"
        "in slices (\\-\\-tp), the layers in stages (\\-\\-pp), or both. The answer has the same\n"
        "bits in every layout.\n.SH VERBS\n",
        to);
    for (int v = 0; v < VERB_COUNT; v++)
        roff_verb(to, v);
    fputs(".SH EXIT STATUS\n0: done. 1: failed, with one sentence on standard error. 2: the\n"
          "command line was wrong. 130: ended by Ctrl\\-C.\n"
          ".SH ENVIRONMENT\n.TP\n.B TANDEM_DEMO\nThe folder of the demo model.\n"
          ".TP\n.B TANDEM_PROFILES\nThe folder of the hardware profiles.\n"
          ".TP\n.B TANDEM_ISA\nThe highest instruction set that is chosen by itself.\n"
          ".TP\n.B TANDEM_PYTHON\nThe Python that renders chat templates (/usr/bin/python3).\n",
          to);
}

/* ------------------------------------------------------------------------------- completion */

/* The choices of a list "a|b|c" separated by blanks. */
static void blanks(FILE *to, const char *choices)
{
    for (; *choices; choices++)
        putc(*choices == '|' ? ' ' : *choices, to);
}

static void complete_verb(FILE *to, int verb)
{
    fprintf(to, "    '%s')\n        case $previous in\n", verb_rows[verb].name);
    for (int i = 0; i < opt_row_count; i++) {
        const struct opt_row *row = &opt_rows[i];
        if (!takes(verb, row) || row->kind == OPT_FLAG)
            continue;
        fprintf(to, "        --%s) words=\"", row->name);
        if (row->kind == OPT_CHOICE)
            blanks(to, row->value);
        fprintf(to, "\"; files=%s ;;\n", !strcmp(row->value, "FILE") ? "yes" : "");
    }
    fputs("        *) files=yes; words=\"", to);
    for (int i = 0; i < opt_row_count; i++)
        if (takes(verb, &opt_rows[i]))
            fprintf(to, "--%s ", opt_rows[i].name);
    fputs("--help\" ;;\n        esac ;;\n", to);
}

void help_completion(FILE *to)
{
    fputs("# bash completion for tandem; made by: tandem help --completion\n"
          "_tandem() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local verb=${COMP_WORDS[1]} words= files=\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" = 1 ]; then\n        COMPREPLY=($(compgen -W '",
          to);
    for (int v = 0; v < VERB_COUNT; v++)
        fprintf(to, "%.*s ", (int)strcspn(verb_rows[v].name, " "), verb_rows[v].name);
    fputs("' -- \"$word\"))\n        return\n    fi\n    case $verb in\n", to);
    for (int v = 0; v < VERB_COUNT; v++) {
        const char *gap = strchr(verb_rows[v].name, ' ');
        if (gap)
            fprintf(to,
                    "    %.*s)\n        verb=\"$verb ${COMP_WORDS[2]}\"\n"
                    "        if [ \"$COMP_CWORD\" = 2 ]; then\n"
                    "            COMPREPLY=($(compgen -W '%s' -- \"$word\"))\n"
                    "            return\n        fi ;;\n",
                    (int)(gap - verb_rows[v].name), verb_rows[v].name, gap + 1);
    }
    fputs("    esac\n    case $verb in\n", to);
    for (int v = 0; v < VERB_COUNT; v++)
        complete_verb(to, v);
    fputs("    esac\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
          "    [ \"$files\" ] && compopt -o default 2>/dev/null\n"
          "    return 0\n}\n"
          "complete -F _tandem tandem\n",
          to);
}

int cmd_help(const struct options *o, struct err *e)
{
    int used = 0;
    if (o->man || o->completion) {
        (o->man ? help_man : help_completion)(stdout);
        return 0;
    }
    if (!o->n_word) {
        help_overview(stdout);
        return 0;
    }
    int verb = opt_verb(o->n_word, o->word, &used);
    if (verb < 0 || used < o->n_word)
        return err_set(e, CMD_USAGE, "help: no verb \"%.40s%s%.40s\" (tandem help lists them)",
                       o->word[0], o->n_word > 1 ? " " : "", o->n_word > 1 ? o->word[1] : "");
    help_verb(stdout, (enum verb)verb);
    return 0;
}
