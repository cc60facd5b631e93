/* hardware_simple.c - a hardware profile of the few numbers that everybody knows about a GPU.
 *
 * See hardware.h. The usual efficiencies are those that fit published runs of 70B models on A100,
 * H100, H200 and B200 (tools/make_profiles.py makes the shipped profiles by the same rules).
 */
#include "topo/hardware.h"

#include <math.h>

/* Shares of the given rates that kernels reach, and what is fixed. */
static const double memory_reached = 0.87, math_reached = 0.80, keys_reached = 0.92;
static const double op_s = 4.6e-6, step_s = 0.5e-3, seq_s = 20e-6, draw_s = 1e-11;
static const double usual_latency_s = 5e-6, usual_reserve_bytes = 1.5 * (1 << 30);

static struct figure given(double x) { return (struct figure){x, 0, SOURCE_GIVEN}; }
static struct figure usual(double x, double error)
{
    return (struct figure){x, error, SOURCE_FITTED};
}

/* Bits of one weight with its part of the scales. */
static double weight_bits(enum num t)
{
    struct quant q = num_quant(t);
    return q.bits ? q.bits + 8.0 * (double)num_scale_bytes(t) * (1 + q.least) / q.group
                  : 8.0 * (double)num_bytes(t);
}

/* 1 to 4096 rows: reading the weight, or multiplying it, whichever takes longer; near the ridge a
 * little longer than both. */
static struct curve product(double bits, const struct hardware_ask *ask)
{
    struct curve c = {.n = 13, .error = 0.15, .source = SOURCE_GIVEN};
    double read = bits / 8 / (ask->memory_rate * memory_reached);
    for (int i = 0; i < c.n; i++) {
        c.x[i] = (double)(1 << i);
        double math = 2 * c.x[i] / (ask->math_rate * math_reached);
        c.y[i] = pow(pow(read, 4) + pow(math, 4), 0.25);
    }
    return c;
}

/* Single rows use a part of the tensor cores, parts of prompts half of their peak. */
static struct curve attend(double math_rate)
{
    struct curve c = {.n = 3, .x = {1, 64, 4096}, .error = 0.3, .source = SOURCE_GIVEN};
    static const double reached[] = {0.1, 0.5, 0.5};
    for (int i = 0; i < c.n; i++)
        c.y[i] = 2 / (math_rate * reached[i]);
    return c;
}

static struct rates device_rates(const struct hardware_ask *ask)
{
    struct rates r = {.active = 1};
    for (int t = 0; t < NUM_COUNT; t++)
        if (num_can_weigh((enum num)t))
            r.product[t] = product(weight_bits((enum num)t), ask);
    static const enum num keys[] = {NUM_F32, NUM_F16, NUM_BF16, NUM_INT8};
    for (size_t i = 0; i < COUNT(keys); i++) {
        r.attend_byte_s[keys[i]] = given(1 / (ask->memory_rate * keys_reached));
        r.attend_madd_s[keys[i]] = attend(ask->math_rate);
    }
    r.byte_s = given(1 / (ask->memory_rate * memory_reached));
    r.op_s = usual(op_s, 0.2);
    r.draw_s = usual(draw_s, 0.5);
    return r;
}

/* Everybody reads from everybody at the link's rate: in one step, or for sums in two; among two
 * devices as among all. */
static struct level link_level(const struct hardware_ask *ask)
{
    struct level l = {.name = "link", .size = ask->devices, .same_host = true};
    struct figure rate = given(1 / (ask->devices > 1 ? ask->link_rate : ask->memory_rate));
    bool known = ask->link_latency_s > 0;
    struct figure once = known ? given(ask->link_latency_s) : usual(usual_latency_s, 0.5);
    struct figure twice = once;
    twice.value *= 2;
    for (int ranks = 2; ranks <= max_int(2, ask->devices); ranks += max_int(1, ask->devices - 2)) {
        for (int op = 0; op < (ranks > 2 ? COLLECTIVE_SEND : COLLECTIVE_COUNT); op++)
            l.collective[l.n_collective++] = (struct collective){
                (enum collective_op)op, WAY_ONE_SHOT, ranks, once, rate, rate, 0};
        l.collective[l.n_collective++] =
            (struct collective){COLLECTIVE_SUM, WAY_TWO_SHOT, ranks, twice, rate, rate, 0};
    }
    return l;
}

int hardware_simple(const struct hardware_ask *ask, struct hardware *h, struct err *e)
{
    const char *name = ask->name ? ask->name : "given";
    if (ask->devices < 1)
        return err_set(e, -EINVAL, "hardware %s: %d devices", name, ask->devices);
    if (!(ask->memory_bytes > usual_reserve_bytes && ask->memory_rate > 0 && ask->math_rate > 0))
        return err_set(e, -EINVAL,
                       "hardware %s: three numbers are needed: memory (more than 1.5 GiB), bytes a "
                       "second, operations a second",
                       name);
    if (ask->devices > 1 && !(ask->link_rate > 0))
        return err_set(e, -EINVAL,
                       "hardware %s: %d devices need the rate of the link between them, in bytes a "
                       "second",
                       name, ask->devices);
    memset(h, 0, sizeof(*h));
    snprintf(h->name, sizeof(h->name), "%s", name);
    snprintf(h->device, sizeof(h->device), "device as given");
    snprintf(h->about, sizeof(h->about),
             "Made of given rates, of which products reach %.0f %% of memory and %.0f %% of "
             "arithmetic, as fits published runs of GPUs; 8- and 4-bit weights at the given "
             "operations a second too. Fixed costs are usual ones.",
             100 * memory_reached, 100 * math_reached);
    h->kind = DEVICE_GPU;
    h->memory_bytes = given(ask->memory_bytes);
    h->reserve_bytes = usual(usual_reserve_bytes, 0.5);
    h->memory_rate = given(ask->memory_rate);
    for (int t = 0; t < NUM_COUNT; t++)
        if (num_can_weigh((enum num)t))
            h->math_rate[t] = given(ask->math_rate);
    h->step_s = usual(step_s, 1);
    h->seq_s = usual(seq_s, 0.5);
    h->rates[h->n_rates++] = device_rates(ask);
    h->level[h->n_level++] = link_level(ask);
    return hardware_check(h, e);
}
