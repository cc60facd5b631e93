/* hardware_check.c - the words of a hardware profile, and which profiles make no sense.
 * See hardware.h. */
#include "topo/hardware.h"
#include "topo/hardware_fields.h"

#include <math.h>

const char *source_name(enum source s)
{
    static const char *const name[SOURCE_COUNT] = {"none",   "exact",    "datasheet",
                                                   "fitted", "measured", "given"};
    return name[s];
}

const char *collective_name(enum collective_op op)
{
    static const char *const name[COLLECTIVE_COUNT] = {"sum", "scatter-sum", "gather", "all-to-all",
                                                       "send"};
    return name[op];
}

const char *way_name(enum collective_way way)
{
    static const char *const name[WAY_COUNT] = {"one-shot", "two-shot", "ring"};
    return name[way];
}

/* ------------------------------------------------------------------------------- checks */

enum { DEVICES_MAX = 1 << 20 };

static int check_error(const char *field, double error, struct err *e)
{
    if (!(error >= 0 && error <= 10))
        return err_set(e, -EINVAL, "%s: an error of %g is not within 0 and 10", field, error);
    return 0;
}

static int check_figure(const char *field, const struct figure *x, bool needed, struct err *e)
{
    if ((unsigned)x->source >= SOURCE_COUNT || (!x->source && x->value != 0))
        return err_set(e, -EINVAL, "%s: its source is not known", field);
    if (!x->source)
        return needed ? err_set(e, -EINVAL, "%s is missing", field) : 0;
    if (!(x->value >= 0 && isfinite(x->value)))
        return err_set(e, -EINVAL, "%s: %g is not a number from 0 on", field, x->value);
    return check_error(field, x->error, e);
}

static int check_curve(const char *field, const struct curve *c, struct err *e)
{
    if (c->n < 0 || c->n > CURVE_MAX)
        return err_set(e, -EINVAL, "%s: %d points, not 1 to %d", field, c->n, CURVE_MAX);
    if (c->n && (!c->source || (unsigned)c->source >= SOURCE_COUNT))
        return err_set(e, -EINVAL, "%s: its source is not known", field);
    for (int i = 0; i < c->n; i++) {
        if (!(c->x[i] > (i ? c->x[i - 1] : 0) && isfinite(c->x[i])))
            return err_set(e, -EINVAL, "%s: x must ascend from above 0, entry %d is %g", field, i,
                           c->x[i]);
        if (!(c->y[i] > 0 && isfinite(c->y[i])))
            return err_set(e, -EINVAL, "%s: y must be above 0, entry %d is %g", field, i, c->y[i]);
    }
    return check_error(field, c->error, e);
}

#define CHECK_FIGURE(f, needed)                                                                    \
    if (!rc)                                                                                       \
        rc = check_figure(#f, &x->f, needed, e);

/* The formats that the first entry knows must be known in all: between entries lie straight lines.
 */
static int check_formats(const struct rates *x, const struct rates *first, struct err *e)
{
    int rc = 0, products = 0;
    for (int t = 0; !rc && t < NUM_COUNT; t++) {
        const char *name = num_name((enum num)t);
        bool keys = x->attend_madd_s[t].n > 0;
        rc = check_curve("product", &x->product[t], e);
        if (!rc)
            rc = check_curve("experts", &x->experts[t], e);
        if (!rc)
            rc = check_figure("attend_byte_s", &x->attend_byte_s[t], keys, e);
        if (!rc)
            rc = check_curve("attend_madd_s", &x->attend_madd_s[t], e);
        if (!rc && !keys && x->attend_byte_s[t].source)
            rc = err_set(e, -EINVAL, "attend_madd_s is missing, attend_byte_s is there");
        if (!rc && !x->product[t].n != !first->product[t].n)
            rc = err_set(e, -EINVAL, "product is known with some numbers of busy devices only");
        if (!rc && !x->experts[t].n != !first->experts[t].n)
            rc = err_set(e, -EINVAL, "experts are known with some numbers of busy devices only");
        if (!rc && keys != (first->attend_madd_s[t].n > 0))
            rc = err_set(e, -EINVAL, "attend is known with some numbers of busy devices only");
        products += x->product[t].n > 0;
        if (rc)
            return err_add(e, rc, "%s", name);
    }
    return products ? 0 : err_set(e, -EINVAL, "product is missing");
}

static int check_rates(const struct hardware *h, int i, struct err *e)
{
    const struct rates *x = &h->rates[i];
    int rc = 0;
    if (x->active <= (i ? h->rates[i - 1].active : 0) || x->active > DEVICES_MAX)
        return err_set(e, -EINVAL, "active must ascend from 1 on, here is %d", x->active);
    RATES_FIGURES(CHECK_FIGURE)
    return rc ? rc : check_formats(x, &h->rates[0], e);
}

static int check_collective(const struct level *l, int i, struct err *e)
{
    const struct collective *x = &l->collective[i];
    int rc = 0;
    if ((unsigned)x->op >= COLLECTIVE_COUNT || (unsigned)x->way >= WAY_COUNT)
        return err_set(e, -EINVAL, "an operation or way that is not known");
    if (x->ranks < 2 || x->ranks > DEVICES_MAX)
        return err_set(e, -EINVAL, "ranks: %d is not 2 or more", x->ranks);
    COLLECTIVE_FIGURES(CHECK_FIGURE)
    if (!rc && !(x->knee_bytes >= 0 && isfinite(x->knee_bytes)))
        rc = err_set(e, -EINVAL, "knee_bytes: %g is not a number from 0 on", x->knee_bytes);
    for (int k = 0; !rc && k < i; k++) {
        const struct collective *y = &l->collective[k];
        if (y->op == x->op && y->way == x->way && y->ranks == x->ranks)
            rc = err_set(e, -EINVAL, "%s, %s, %d ranks: given twice", collective_name(x->op),
                         way_name(x->way), x->ranks);
    }
    return rc;
}

/* What is not listed is priced by sends. */
static bool has_send(const struct level *l)
{
    for (int i = 0; i < l->n_collective; i++)
        if (l->collective[i].op == COLLECTIVE_SEND && l->collective[i].way == WAY_ONE_SHOT)
            return true;
    return false;
}

static int check_level(const struct level *l, struct err *e)
{
    int rc = 0;
    if (!*l->name)
        return err_set(e, -EINVAL, "name is empty");
    if (l->size < 1 || l->size > DEVICES_MAX)
        return err_set(e, -EINVAL, "size: %d is not within 1 and %d", l->size, DEVICES_MAX);
    if (l->n_collective < 0 || l->n_collective > COLLECTIVES_MAX)
        return err_set(e, -EINVAL, "collectives: %d, more than %d", l->n_collective,
                       COLLECTIVES_MAX);
    for (int i = 0; !rc && i < l->n_collective; i++)
        if ((rc = check_collective(l, i, e)))
            rc = err_add(e, rc, "collectives: entry %d", i);
    if (!rc && !has_send(l))
        rc = err_set(e, -EINVAL, "collectives: a send of way one-shot is missing");
    return rc;
}

static int check_levels(const struct hardware *h, struct err *e)
{
    int rc = 0;
    double devices = 1;
    if (h->n_level < 0 || h->n_level > LEVELS_MAX)
        return err_set(e, -EINVAL, "levels: %d, more than %d", h->n_level, LEVELS_MAX);
    for (int i = 0; !rc && i < h->n_level; i++) {
        if ((rc = check_level(&h->level[i], e)))
            rc = err_add(e, rc, "levels: entry %d", i);
        if (!rc && i && h->level[i].same_host && !h->level[i - 1].same_host)
            rc = err_set(e, -EINVAL, "levels: entry %d is inside a host, the one within it is not",
                         i);
        devices *= h->level[i].size;
    }
    if (!rc && devices > DEVICES_MAX)
        rc = err_set(e, -EINVAL, "levels: %.0f devices, more than %d", devices, DEVICES_MAX);
    return rc;
}

static int check_all(const struct hardware *x, struct err *e)
{
    int rc = 0;
    if (!*x->name || !*x->device)
        return err_set(e, -EINVAL, "%s is empty", *x->name ? "device" : "name");
    if (x->kind != DEVICE_CPU && x->kind != DEVICE_GPU)
        return err_set(e, -EINVAL, "kind is not known");
    HARDWARE_FIGURES(CHECK_FIGURE)
    for (int t = 0; !rc && t < NUM_COUNT; t++)
        if ((rc = check_figure("math_rate", &x->math_rate[t], false, e)))
            rc = err_add(e, rc, "%s", num_name((enum num)t));
    if (!rc && (x->memory_bytes.value < 1 || x->memory_rate.value < 1))
        rc = err_set(e, -EINVAL, "%s: 0 is too little",
                     x->memory_rate.value < 1 ? "memory_rate" : "memory_bytes");
    if (!rc && x->reserve_bytes.value >= x->memory_bytes.value)
        rc = err_set(e, -EINVAL, "reserve_bytes: %.0f leaves nothing of %.0f",
                     x->reserve_bytes.value, x->memory_bytes.value);
    if (!rc && (x->n_rates < 1 || x->n_rates > RATES_MAX))
        rc = err_set(e, -EINVAL, "rates: %d entries, not 1 to %d", x->n_rates, RATES_MAX);
    if (!rc && x->kind == DEVICE_GPU && (x->n_rates != 1 || x->rates[0].active != 1))
        rc = err_set(e, -EINVAL, "rates: GPUs have one entry, with active 1");
    for (int i = 0; !rc && i < x->n_rates; i++)
        if ((rc = check_rates(x, i, e)))
            rc = err_add(e, rc, "rates: entry %d", i);
    return rc ? rc : check_levels(x, e);
}

int hardware_check(const struct hardware *h, struct err *e)
{
    int rc = check_all(h, e);
    return rc ? err_add(e, rc, "hardware %s", *h->name ? h->name : "profile") : 0;
}
