/* table.c - tables as text and as Markdown. See explain.h. */
#include "predict/explain.h"

struct table table_begin(int columns) { return (struct table){.columns = columns}; }

void table_put(struct table *t, const char *fmt, ...)
{
    const int block = 64;
    if (t->n % block == 0) { /* cells grow in blocks */
        char(*more)[96] = pool_get(&t->pool, (size_t)(t->n + block) * sizeof(*more));
        if (t->n)
            memcpy(more, t->cell, (size_t)t->n * sizeof(*more));
        t->cell = more;
    }
    va_list args;
    va_start(args, fmt);
    vsnprintf(t->cell[t->n++], sizeof(*t->cell), fmt, args);
    va_end(args);
}

/* Columns take as much as a terminal shows, not as many bytes. */
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += (*s & 0xC0) != 0x80;
    return n;
}

static void print_row(const struct table *t, int row, const int *wide, FILE *to, bool markdown)
{
    for (int c = 0; c < t->columns; c++) {
        const char *s = t->cell[row * t->columns + c];
        bool last = c == t->columns - 1;
        if (markdown)
            fprintf(to, "%s%s%s", c ? " | " : "| ", s, last ? " |" : "");
        else
            fprintf(to, "%s%s%*s", c ? "  " : "  ", s, last ? 0 : wide[c] - width(s), "");
    }
    putc('\n', to);
}

void table_end(struct table *t, FILE *to, bool markdown)
{
    int wide[16] = {0};
    must(t->columns <= 16 && t->n % t->columns == 0);
    for (int i = 0; i < t->n; i++)
        wide[i % t->columns] = max_int(wide[i % t->columns], width(t->cell[i]));
    for (int r = 0; r < t->n / t->columns; r++) {
        print_row(t, r, wide, to, markdown);
        for (int c = 0; markdown && r == 0 && c < t->columns; c++)
            fprintf(to, "%s", c == t->columns - 1 ? "|---|\n" : "|---");
    }
    pool_free(&t->pool);
}
