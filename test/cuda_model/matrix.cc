/* matrix.cc - the model's matrices of a warp, its copies, and conversions. gpu.h says how numbers
 * lie in registers.
 */
#include "block.h"

#include <vector>

/* ------------------------------------------------------------------------------- products */

struct product_of_floats {
    float *c;
    const uint32_t *a, *b;
};

static float half_of(const uint32_t *word, int i)
{
    return __uint_as_float(i % 2 ? word[i / 2] & 0xffff0000u : word[i / 2] << 16);
}

/* Number (row, k) of a is in lane 4 (row % 8) + k % 8 / 2, in a[row / 8 + 2 (k / 8)]. */
static void multiply_floats(void **lane)
{
    product_of_floats *of[32];
    float a[16][16], b[16][8], c[16][8];
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        of[l] = static_cast<product_of_floats *>(lane[l]);
        for (int i = 0; i < 8; i++)
            a[g + i / 2 % 2 * 8][2 * t + i % 2 + i / 4 * 8] = half_of(of[l]->a, i);
        for (int i = 0; i < 4; i++) {
            b[2 * t + i % 2 + i / 2 * 8][g] = half_of(of[l]->b, i);
            c[g + i / 2 * 8][2 * t + i % 2] = of[l]->c[i];
        }
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 8; j++)
                c[r][j] += a[r][k] * b[k][j];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            of[l]->c[i] = c[l / 4 + i / 2 * 8][2 * (l % 4) + i % 2];
}

void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    static const model_meeting here = {"mma_bf16", multiply_floats, false};
    product_of_floats mine = {c, a, b};
    model_meet(&here, &mine);
}

struct product_of_bytes {
    int *c;
    const uint32_t *a, *b;
};

static int byte_of(const uint32_t *word, int i) { return (int)(word[i / 4] >> i % 4 * 8 & 255); }

static void multiply_bytes(void **lane)
{
    product_of_bytes *of[32];
    int a[16][32], b[32][8], c[16][8];
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        of[l] = static_cast<product_of_bytes *>(lane[l]);
        for (int i = 0; i < 16; i++)
            a[g + i / 4 % 2 * 8][4 * t + i % 4 + i / 8 * 16] = byte_of(of[l]->a, i);
        for (int i = 0; i < 8; i++)
            b[4 * t + i % 4 + i / 4 * 16][g] = (int8_t)byte_of(of[l]->b, i);
        for (int i = 0; i < 4; i++)
            c[g + i / 2 * 8][2 * t + i % 2] = of[l]->c[i];
    }
    for (int r = 0; r < 16; r++)
        for (int k = 0; k < 32; k++)
            for (int j = 0; j < 8; j++)
                c[r][j] += a[r][k] * b[k][j];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            of[l]->c[i] = c[l / 4 + i / 2 * 8][2 * (l % 4) + i % 2];
}

void mma_u8s8(int c[4], const uint32_t a[4], const uint32_t b[2])
{
    static const model_meeting here = {"mma_u8s8", multiply_bytes, false};
    product_of_bytes mine = {c, a, b};
    model_meet(&here, &mine);
}

/* ------------------------------------------------------------------------------- ldmatrix */

struct loaded {
    uint32_t *r;
    const void *row;
};

template <int N, bool TRANS> static void load_all(void **lane)
{
    uint16_t number[N][8][8];
    for (int l = 0; l < 8 * N; l++)
        memcpy(number[l / 8][l % 8], static_cast<loaded *>(lane[l])->row, 16);
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < N; m++) {
            int g = l / 4, t = l % 4;
            uint32_t lo = TRANS ? number[m][2 * t][g] : number[m][g][2 * t];
            uint32_t hi = TRANS ? number[m][2 * t + 1][g] : number[m][g][2 * t + 1];
            static_cast<loaded *>(lane[l])->r[m] = hi << 16 | lo;
        }
}

template <int N, bool TRANS> static void load_matrix(uint32_t *r, const void *row)
{
    static const model_meeting here = {TRANS ? "load_matrix_trans" : "load_matrix",
                                       load_all<N, TRANS>, false};
    loaded mine = {r, row};
    if (model_thread() % 32 < 8 * N && ((uintptr_t)row % 16 || !model_is_shared(row, 16)))
        model_fail("load_matrix: a row at %p is not 16 aligned bytes of shared memory", row);
    if (model_thread() % 32 < 8 * N)
        model_tell(row, 16, MODEL_READ);
    model_meet(&here, &mine);
}

void load_matrix_x4(uint32_t r[4], const void *row) { load_matrix<4, false>(r, row); }
void load_matrix_x2(uint32_t r[2], const void *row) { load_matrix<2, false>(r, row); }
void load_matrix_x4_trans(uint32_t r[4], const void *row) { load_matrix<4, true>(r, row); }
void load_matrix_x2_trans(uint32_t r[2], const void *row) { load_matrix<2, true>(r, row); }

/* ------------------------------------------------------------------------------- copies */

struct copying {
    void *to;
    const void *from;
    int group;
};

/* Of one thread of a block. */
struct copies {
    std::vector<copying> begun;
    int committed;
};

static thread_local copies all_copies[MODEL_FIBERS];

void copy_async(void *shared, const void *global, bool there)
{
    copies *mine = &all_copies[model_thread()];
    if ((uintptr_t)shared % 16 || !model_is_shared(shared, 16))
        model_fail("copy_async: %p is not 16 aligned bytes of shared memory", shared);
    if (there && (uintptr_t)global % 16)
        model_fail("copy_async: %p is not aligned to 16 bytes", global);
    if (there)
        model_tell(global, 16, MODEL_READ);
    model_tell(shared, 16, MODEL_COPY);
    memset(shared, 0xff, 16);
    mine->begun.push_back({shared, there ? global : NULL, mine->committed});
}

void copy_commit(void) { all_copies[model_thread()].committed++; }

void model_copy_wait(int newest)
{
    copies *mine = &all_copies[model_thread()];
    size_t kept = 0;
    for (const copying &c : mine->begun)
        if (c.group >= mine->committed - newest) {
            mine->begun[kept++] = c;
        } else {
            model_tell(c.to, 16, MODEL_ARRIVE);
            if (c.from)
                memcpy(c.to, c.from, 16);
            else
                memset(c.to, 0, 16);
        }
    mine->begun.resize(kept);
}

void model_copies_forget(int n)
{
    for (int i = 0; i < n; i++) {
        all_copies[i].begun.clear();
        all_copies[i].committed = 0;
    }
}

/* ------------------------------------------------------------------------------- conversions */

static uint32_t to_bf16(float f)
{
    uint32_t u = __float_as_uint(f);
    return f != f ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
}

uint32_t to_bf16x2(float lo, float hi) { return to_bf16(hi) << 16 | to_bf16(lo); }

uint32_t times_bf16x2(uint32_t a, uint32_t b)
{
    const float lo = __uint_as_float(a << 16) * __uint_as_float(b << 16);
    return to_bf16x2(lo, __uint_as_float(a & 0xffff0000u) * __uint_as_float(b & 0xffff0000u));
}

float from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, rest = h & 1023;
    if (!exponent) {
        float f = (float)rest * 0x1p-24f;
        return sign ? -f : f;
    }
    exponent = exponent == 31 ? 255 : exponent + 112;
    return __uint_as_float(sign | exponent << 23 | rest << 13);
}

float fast_exp2(float x)
{
    float y = (float)exp2((double)x);
    return y < 0x1p-126f ? 0 : y;
}
