/* product.cu - products and partial sums, as the device's host side calls them: which parts there
 * are, where their sums go, and which kernel makes them.
 */
#include "dev/cuda/product.h"

enum { ROWS_MOST = 128 }; /* rows of x are made ready in multiples of it at most */

/* ------------------------------------------------------------------------------- pieces */

static struct piece piece_of(const struct gpu_part *part)
{
    struct piece k = {};
    k.at = (const char *)part->at;
    k.rows = part->rows;
    k.cols = part->cols;
    k.last = true;
    return k;
}

/* Parts hold successive columns, each is a leaf; complete subtrees as tree_split() of base/tree.h
 * cuts them. */
static void add_shares(struct product *p, const struct gpu_weight *w)
{
    int left = 0, size = 0, to = -1, x = 0;
    for (int i = 0; i < w->n_part; i++) {
        struct piece k = piece_of(&w->part[i]);
        if (!left) {
            const int lo = w->first + i, hi = w->first + w->n_part;
            for (size = 1; lo % (2 * size) == 0 && lo + 2 * size <= hi;)
                size *= 2;
            left = size;
            to++;
        }
        k.to = to;
        k.leaf = size - left--;
        k.last = !left;
        k.x = x;
        x += k.cols;
        p->piece[p->n_piece++] = k;
    }
}

/* ------------------------------------------------------------------------------- ready rows */

static size_t ready_bytes(size_t rows, size_t columns, size_t groups)
{
    return rows * (columns + groups * sizeof(struct x_scale));
}

/* At most, of a row of `dim` numbers in up to GPU_PARTS parts. */
size_t product_room_bytes(int max_tok, int max_dim)
{
    const size_t columns = (size_t)max_dim + GPU_PARTS * X_BLOCK;
    return ready_bytes((size_t)up_to(max_tok, ROWS_MOST), columns, columns / 32);
}

/* Where rows are made ready: in products all parts have the same columns. */
static int make_ready(void *stream, enum num type, struct product *p, const struct gpu_room *room)
{
    const int rows = up_to(p->n, 8);
    p->ready_row = p->groups = 0;
    for (int i = 0; i < p->n_piece; i++) {
        struct piece *k = &p->piece[i];
        if (p->together || !i) {
            k->ready = p->ready_row;
            k->group = p->groups;
            p->ready_row += up_to(k->cols, X_BLOCK);
            p->groups += parts_of(k->cols, format_group(type));
        }
    }
    if (ready_bytes((size_t)rows, (size_t)p->ready_row, (size_t)p->groups) > room->bytes)
        return GPU_NO_MEMORY;
    p->scale = (struct x_scale *)room->at;
    p->ready = (char *)(p->scale + (size_t)rows * (size_t)p->groups);
    struct product once = *p;
    if (!p->together)
        once.n_piece = 1;
    return product_prepare(stream, type, &once, rows);
}

static int multiply(void *stream, enum num type, struct product *p, int blocks,
                    const struct gpu_room *room)
{
    if (!p->n || !p->n_piece || !blocks)
        return 0;
    if (type == NUM_F32 || type == NUM_F16)
        return product_plain(stream, type, p, blocks);
    if (format_whole(type)) {
        int error = make_ready(stream, type, p, room);
        if (error)
            return error;
    }
    return product_stream(stream, type, p, blocks);
}

/* ------------------------------------------------------------------------------- calls */

/* Whether b goes on where a ends, so that the two are one part. */
static bool goes_on(enum num type, const struct piece *a, const struct piece *b)
{
    const size_t bytes = (size_t)a->rows / 16 * block_bytes(type, a->cols);
    return a->to == b->to && a->rows % 16 == 0 && a->at + bytes == b->at;
}

/* One more part of outputs. More than there is room for go into a launch of their own. */
static int add_piece(void *stream, enum num type, struct product *p, int *blocks,
                     const struct piece *k, const struct gpu_room *room)
{
    struct piece *before = &p->piece[p->n_piece - 1];
    if (p->n_piece && goes_on(type, before, k)) {
        *blocks += parts_of(before->rows + k->rows, PAIR) - parts_of(before->rows, PAIR);
        before->rows += k->rows;
        return 0;
    }
    if (p->n_piece == GPU_PARTS) {
        int error = multiply(stream, type, p, *blocks, room);
        if (error)
            return error;
        p->n_piece = *blocks = 0;
    }
    p->piece[p->n_piece] = *k;
    p->piece[p->n_piece++].first_block = *blocks;
    *blocks += parts_of(k->rows, PAIR);
    return 0;
}

int gpu_products(void *stream, const float *x, int n, int dim, const struct gpu_term *term,
                 int n_term, const struct gpu_room *room)
{
    const enum num type = term[0].w.type;
    struct product p = {};
    int blocks = 0;
    p.x = x;
    p.n = n;
    p.dim = dim;
    for (int i = 0; i < n_term; i++) {
        int out = 0;
        p.to[i] = {term[i].y, term[i].bias, term[i].w.rows};
        for (int j = 0; j < term[i].w.n_part; j++) {
            struct piece k = piece_of(&term[i].w.part[j]);
            k.to = i;
            k.out = out;
            out += k.rows;
            int error = k.rows ? add_piece(stream, type, &p, &blocks, &k, room) : 0;
            if (error)
                return error;
        }
    }
    return multiply(stream, type, &p, blocks, room);
}

int gpu_partial(void *stream, float *const plane[GPU_PLANES], int n_plane, const float *x, int n,
                const struct gpu_weight *w, const struct gpu_room *room)
{
    struct product p = {};
    p.x = x;
    p.n = n;
    p.dim = w->cols;
    p.together = true;
    for (int i = 0; i < n_plane; i++)
        p.to[i] = {plane[i], NULL, w->rows};
    add_shares(&p, w);
    return multiply(stream, w->type, &p, parts_of(w->rows, PAIR), room);
}
