/* product.cu - products and partial sums, as the device's host side calls them: which parts there
 * are, where their sums go, and which kernel makes them.
 */
#include "dev/cuda/product.h"

/* Rows of x are made ready in multiples; so many rows are done as fast as weights can be read. */
enum { READY_ROWS = 8 };

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

/* Where rows made ready lie: scales, rows, and what is left for sums. Every part's columns are
 * filled up to X_BLOCK, rows to tiles of product_stream.cu. */
static size_t ready_room(size_t rows, size_t row_bytes, size_t groups)
{
    return (rows * (row_bytes + groups * sizeof(struct x_scale)) + 255) / 256 * 256;
}

/* At most, of a row of `dim` numbers in up to GPU_PARTS parts. */
size_t product_room_bytes(int max_tok, int max_dim, int sm)
{
    const size_t rows = (size_t)up_to(max_tok, READY_ROWS);
    const size_t columns = (size_t)max_dim + GPU_PARTS * X_BLOCK;
    const size_t bf16 = ready_room(rows, 2 * columns, 0);
    const size_t whole = ready_room(rows, columns, columns / 32);
    return (bf16 > whole ? bf16 : whole) + product_stack_bytes(sm);
}

/* In products all parts have the same columns, so the first one's serve for all. */
static int make_ready(void *stream, enum num type, struct product *p, struct gpu_room *room)
{
    const int bytes = ready_bytes(type);
    p->ready_rows = up_to(p->n, READY_ROWS);
    p->ready_row = p->groups = 0;
    for (int i = 0; i < (p->together ? p->n_piece : 1); i++) {
        struct piece *k = &p->piece[i];
        k->ready = p->ready_row;
        k->group = p->groups;
        p->ready_row += up_to(k->cols, X_BLOCK) * bytes;
        p->groups += format_whole(type) ? parts_of(k->cols, format_group(type)) : 0;
    }
    const size_t used = ready_room((size_t)p->ready_rows, (size_t)p->ready_row, (size_t)p->groups);
    if (used > room->bytes)
        return GPU_NO_MEMORY;
    p->scale = (struct x_scale *)room->at;
    p->ready = (char *)(p->scale + (size_t)p->ready_rows * (size_t)p->groups);
    room->at = (char *)room->at + used;
    room->bytes -= used;
    struct product once = *p;
    once.n_piece = p->together ? p->n_piece : 1;
    return product_prepare(stream, type, &once);
}

/* Few rows: their kernels take as long as weights take to be read. */
static bool is_streamed(enum num type, int n)
{
    return (type == NUM_BF16 || format_grouped(type)) &&
           n <= (format_whole(type) ? GPU_STREAMED_WHOLE : GPU_STREAMED);
}

static int multiply(void *stream, enum num type, struct product *p, const struct gpu_room *room)
{
    struct gpu_room left = *room;
    if (!p->n || !p->n_piece || !p->piece[0].rows)
        return 0;
    if (type == NUM_F32 || type == NUM_F16)
        return product_plain(stream, type, p);
    if (!format_whole(type) && is_streamed(type, p->n)) /* rows as they are */
        return product_stream(stream, type, p);
    const bool fills = product_wgmma_fills(p, room->sm);
    p->bricks = type == NUM_BF16 && (room->warpgroups & WARPGROUP_PRODUCTS) &&
                (fills || product_batch_takes(p));
    const int error = make_ready(stream, type, p, &left);
    if (error)
        return error;
    if (p->bricks)
        return fills ? product_wgmma(stream, p, &left) : product_batch(stream, p);
    return is_streamed(type, p->n) ? product_stream(stream, type, p)
                                   : product_tile(stream, type, p, &left);
}

/* ------------------------------------------------------------------------------- calls */

/* Whether b goes on where a ends, so that the two are one part. */
static bool goes_on(enum num type, const struct piece *a, const struct piece *b)
{
    const size_t bytes = (size_t)a->rows / 16 * block_bytes(type, a->cols);
    return a->to == b->to && a->rows % 16 == 0 && a->at + bytes == b->at;
}

/* One more part of outputs. More than there is room for go into a launch of their own. */
static int add_piece(void *stream, enum num type, struct product *p, const struct piece *k,
                     const struct gpu_room *room)
{
    struct piece *before = &p->piece[p->n_piece - 1];
    if (p->n_piece && goes_on(type, before, k)) {
        before->rows += k->rows;
        return 0;
    }
    if (p->n_piece == GPU_PARTS) {
        int error = multiply(stream, type, p, room);
        if (error)
            return error;
        p->n_piece = 0;
    }
    p->piece[p->n_piece++] = *k;
    return 0;
}

/* The parts of a term, whose outputs go to p->to[i]. */
static int add_term(void *stream, struct product *p, int i, const struct gpu_term *term,
                    const struct gpu_room *room)
{
    const enum num type = term->w.type;
    int out = 0, error = 0;
    p->to[i] = {term->y, term->bias, term->w.rows};
    for (int j = 0; j < term->w.n_part && !error; j++) {
        struct piece k = piece_of(&term->w.part[j]);
        k.to = i;
        k.out = out;
        out += k.rows;
        error = k.rows ? add_piece(stream, type, p, &k, room) : 0;
    }
    return error;
}

int gpu_products(void *stream, const float *x, int n, int dim, const struct gpu_term *term,
                 int n_term, const struct gpu_room *room)
{
    struct product p = {};
    p.x = x;
    p.n = n;
    p.dim = dim;
    for (int i = 0; i < n_term; i++) {
        const int error = add_term(stream, &p, i, &term[i], room);
        if (error)
            return error;
    }
    return multiply(stream, term[0].w.type, &p, room);
}

/* Gate and up part by part, where they are cut alike; false: they are not. */
static bool pair_up(struct product *p, const struct gpu_term both[2])
{
    struct product one = {}, other = {}; /* nothing is launched: neither has so many parts */
    add_term(NULL, &one, 0, &both[0], NULL);
    add_term(NULL, &other, 1, &both[1], NULL);
    if (one.n_piece != other.n_piece || 2 * one.n_piece > GPU_PARTS)
        return false;
    for (int i = 0; i < one.n_piece; i++) {
        if (one.piece[i].rows != other.piece[i].rows)
            return false;
        p->piece[2 * i] = one.piece[i];
        p->piece[2 * i + 1] = other.piece[i];
    }
    p->n_piece = 2 * one.n_piece;
    p->to[0] = one.to[0], p->to[1] = other.to[1];
    return true;
}

int gpu_glu(void *stream, const float *x, int n, int dim, const struct gpu_term both[2],
            const struct gpu_room *room)
{
    const enum num type = both[0].w.type;
    struct product p = {};
    p.x = x;
    p.n = n;
    p.dim = dim;
    p.gated = is_streamed(type, n) && pair_up(&p, both);
    if (p.gated)
        return multiply(stream, type, &p, room);
    const int error = gpu_products(stream, x, n, dim, both, 2, room);
    return error ? error : gpu_swiglu(stream, both[0].y, both[1].y, n, both[0].w.rows);
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
    return multiply(stream, w->type, &p, room);
}
