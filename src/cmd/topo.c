/* topo.c - `tandem topo`: what this host is made of, and with --measure what it can do. */
#include "base/json.h"
#include "cmd/cmd.h"
#include "cmd/device.h"
#include "cmd/open.h"
#include "cmd/progress.h"
#include "cmd/step_host.h"
#include "cmd/terminal.h"
#include "predict/calibrate.h"
#include "predict/calibrate_gpu.h"
#include "predict/recalibrate.h"
#include "topo/hardware.h"
#include "topo/machine.h"

#include <time.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------- measuring */

static void show_progress(void *arg, size_t done, size_t all)
{
    progress_percent(arg, "measuring", done, all);
}

/* "AMD EPYC 9755": as Linux names the processor. */
static void read_processor(char *to, size_t n)
{
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "re");
    snprintf(to, n, "processor");
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
            char *name = strchr(line, ':') + 1;
            name += strspn(name, " \t");
            name[strcspn(name, "\n")] = 0;
            snprintf(to, n, "%s", name);
            break;
        }
    if (f)
        fclose(f);
}

static const char about_errors[] =
    "Errors are half of what lies between the 5th and the 95th percentile of repeats, or what a "
    "fit misses.";

/* "xe12", and when. */
static void name_machine(struct hardware *h)
{
    time_t now = time(NULL);
    struct tm utc;
    snprintf(h->name, sizeof(h->name), "host");
    gethostname(h->name, sizeof(h->name) - 1);
    strftime(h->date, sizeof(h->date), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}

static void name_cores(struct hardware *h, const struct host *host, enum isa isa)
{
    char processor[48];
    read_processor(processor, sizeof(processor));
    name_machine(h);
    snprintf(h->device, sizeof(h->device), "core of an %s", processor);
    snprintf(h->about, sizeof(h->about),
             "Measured by tandem %s on %s: %d cores on %d NUMA node%s, kernels %s. %s",
             TANDEM_VERSION, h->name, host->n_core, host->n_node, host->n_node == 1 ? "" : "s",
             isa_name(isa), about_errors);
}

static void name_gpus(struct hardware *h, const struct gpus *g)
{
    name_machine(h);
    snprintf(h->device, sizeof(h->device), "%.63s", g->gpu[0].name);
    snprintf(h->about, sizeof(h->about),
             "Measured by tandem %s on %s: %d GPU%s of sm_%d, our own kernels; memory_rate and "
             "math_rate are the best that any of them reached. %s",
             TANDEM_VERSION, h->name, g->n, g->n == 1 ? "" : "s", g->gpu[0].arch, about_errors);
}

/* Of weights; "all" is none. */
static bool one_format(const char *name, enum num *to)
{
    *to = num_named(name);
    return *to < NUM_COUNT;
}

/* What every pair of GPUs sends. */
static void print_links(const struct gpu_links *l)
{
    if (l->n < 2)
        return;
    printf("GB/s from GPU\n%-10s", "to GPU");
    for (int k = 0; k < l->n; k++)
        printf(" %7d", k);
    for (int i = 0; i < l->n; i++) {
        printf("\n%-10d", i);
        for (int k = 0; k < l->n; k++)
            i == k ? printf(" %7s", "-") : printf(" %7.1f", 1e-9 * l->bytes_s[i][k]);
    }
    printf("\n\n");
}

static int measure_gpus(const struct options *o, struct hardware *h, const struct gpus *g,
                        const struct host *host, const struct calibrate_opts *opts, struct err *e)
{
    struct gpu_links links;
    struct err alone;
    name_gpus(h, g);
    int rc = calibrate_gpus(h, g, host, opts, &links, &alone, e);
    if (!rc && *alone.text)
        fprintf(stderr, "tandem: note: the profile is of one GPU: %s\n", alone.text);
    if (!rc && !o->json)
        print_links(&links);
    return rc;
}

/* What the host does for a step, beside what the device adds. */
static void add_host(struct hardware *h)
{
    const struct figure device = h->step_s;
    struct err why;
    if (step_host_measure(h, &why))
        fprintf(stderr, "tandem: note: work of the host per step is not measured: %s\n", why.text);
    else
        h->step_s.value += device.value;
}

static int measure(const struct options *o, struct hardware *h, struct err *e)
{
    struct host host;
    struct gpus gpus;
    struct notes notes = {.n = 0};
    enum isa isa;
    int rc = open_isa(o->isa, &isa, e);
    if (!rc)
        rc = device_choose(&gpus, o, &notes, e);
    if (rc)
        return rc;
    for (int i = 0; i < notes.n; i++)
        fprintf(stderr, "tandem: note: %s\n", notes.text[i]);
    host_read(&host, NULL);
    host = host_part(&host, host_quota());
    memset(h, 0, sizeof(*h));
    struct progress p = progress_begin(o->quiet);
    enum num only = NUM_F32;
    struct calibrate_opts opts = {.isa = isa,
                                  .only_one = one_format(o->kernel_dtype, &only),
                                  .only = only,
                                  .progress = show_progress,
                                  .arg = &p};
    if (!gpus.n)
        name_cores(h, &host, isa);
    rc = gpus.n ? measure_gpus(o, h, &gpus, &host, &opts, e) : calibrate(h, &host, &opts, e);
    if (!rc)
        add_host(h);
    progress_end(&p);
    return rc ? rc : hardware_check(h, e);
}

static int read_metrics(const char *path, struct seen_steps *seen, struct err *e)
{
    enum { MOST = 16 << 20 };
    bool in = !strcmp(path, "-");
    size_t n = 0;
    char *text = in ? terminal_all(stdin) : NULL;
    int rc = in ? 0 : file_read(path, MOST, &text, &n, e);
    if (rc)
        return rc;
    rc = seen_read(seen, text, in ? strlen(text) : n, in ? "standard input" : path, e);
    free(text);
    return rc;
}

static int correct(const struct options *o, struct hardware *h, struct err *e)
{
    struct seen_steps seen;
    double ratio;
    if (o->measure || !o->old_hardware)
        return err_set(
            e, CMD_USAGE,
            "topo: --from-metrics corrects a profile: name it with --hardware, and leave "
            "--measure out");
    int rc = hardware_load(o->old_hardware, h, e);
    if (!rc)
        rc = read_metrics(o->from_metrics, &seen, e);
    if (!rc)
        rc = recalibrate(h, &seen, &ratio, e);
    if (!rc)
        fprintf(stderr, "%.0f steps took %.2f times what %s says\n", seen.steps, ratio, h->name);
    return rc;
}

/* ------------------------------------------------------------------------------- telling */

static double percent(const struct figure *f) { return 100 * f->error; }

/* At the points of x, as far as it goes; experts' rows are those of each. */
static void print_curve(const char *name, const char *what, const struct curve *c,
                        const struct curve *x)
{
    char full[32];
    if (!c->n)
        return;
    snprintf(full, sizeof(full), "%s%s", name, what);
    printf("  %-10s", full);
    for (int i = 0; i < x->n && x->x[i] <= c->x[c->n - 1]; i++)
        printf(" %6.3g", 1e12 * curve_at(c, x->x[i]));
    printf("  +- %.0f %%\n", 100 * c->error);
}

static void print_rates(const struct rates *r, bool gpu)
{
    printf("\n%d %s%s at work; of each:\n  products, ns per 1000 weights\n  %-10s", r->active,
           gpu ? "GPU" : "core", r->active == 1 ? "" : "s", "rows");
    const struct curve *x = r->product; /* of the first format: others may have fewer points */
    while (x < r->product + NUM_COUNT - 1 && !x->n)
        x++;
    for (int i = 0; i < x->n; i++)
        printf(" %6.0f", x->x[i]);
    putchar('\n');
    for (int t = 0; t < NUM_COUNT; t++) {
        print_curve(num_name((enum num)t), "", &r->product[t], x);
        print_curve(num_name((enum num)t), " experts", &r->experts[t], x);
    }
    for (int t = 0; t < NUM_COUNT; t++) {
        const struct curve *c = &r->attend_madd_s[t];
        if (!c->n)
            continue;
        printf("  attention, cache %-5s %5.1f GB/s +- %.0f %%; multiply-adds a ns with 1, 16, 256 "
               "rows: %.1f %.1f %.1f +- %.0f %%\n",
               num_name((enum num)t), 1e-9 / r->attend_byte_s[t].value,
               percent(&r->attend_byte_s[t]), 1e-9 / curve_at(c, 1), 1e-9 / curve_at(c, 16),
               1e-9 / curve_at(c, 256), 100 * c->error);
    }
    printf("  attention, each row of a head: %.2f us +- %.0f %%\n", 1e6 * r->attend_row_s.value,
           percent(&r->attend_row_s));
    printf(
        "  other operations: %.2f us +- %.0f %% and %.1f GB/s; a further thread %.2f us; drawing "
        "%.1f us and %.1f us a row of 100000 words; within a top-k or top-p %.1f and %.1f us\n",
        1e6 * r->op_s.value, percent(&r->op_s), 1e-9 / r->byte_s.value, 1e6 * r->split_s.value,
        1e6 * r->draw_op_s.value, 1e11 * r->draw_s.value, 1e6 * r->rank_op_s.value,
        1e11 * r->rank_s.value);
}

static void print_level(const struct level *l)
{
    printf("\n%s, %d:\n  %-11s %-8s %5s %11s %18s %9s\n", l->name, l->size, "operation", "way",
           "ranks", "latency us", "GB/s near, far", "knee KiB");
    for (int i = 0; i < l->n_collective; i++) {
        const struct collective *c = &l->collective[i];
        printf("  %-11s %-8s %5d %11.2f %9.1f %8.1f %9.0f  +- %.0f %%\n", collective_name(c->op),
               way_name(c->way), c->ranks, 1e6 * c->latency_s.value, 1e-9 / c->byte_s.value,
               1e-9 / c->far_byte_s.value, c->knee_bytes / 1024, percent(&c->latency_s));
    }
}

static void print_profile(const struct hardware *h)
{
    printf("%s: %s\n%s\n\n", h->name, h->device, h->about);
    printf("memory %.1f GiB, %.1f of them taken; read by %s at %.1f GB/s +- %.0f %%\n",
           h->memory_bytes.value * 0x1p-30, h->reserve_bytes.value * 0x1p-30,
           h->kind == DEVICE_GPU ? "a GPU" : "all cores together", 1e-9 * h->memory_rate.value,
           percent(&h->memory_rate));
    if (h->step_s.source)
        printf("a step costs the host %.1f us +- %.0f %%, and %.2f us per sequence\n",
               1e6 * h->step_s.value, percent(&h->step_s), 1e6 * h->seq_s.value);
    for (int i = 0; i < h->n_rates; i++)
        print_rates(&h->rates[i], h->kind == DEVICE_GPU);
    for (int i = 0; i < h->n_level; i++)
        print_level(&h->level[i]);
}

static int write_profile(const struct hardware *h, FILE *f, const char *name, struct err *e)
{
    json_t *o = hardware_to_json(h);
    bool bad = json_dumpf(o, f, JSON_INDENT(1)) || putc('\n', f) == EOF || fflush(f);
    json_decref(o);
    return bad ? err_set(e, -EIO, "%s: cannot be written", name) : 0;
}

/* Opened before anything is measured, which takes long; a file that is there stays until then. */
static int open_out(const char *path, FILE **f, struct err *e)
{
    *f = path ? fopen(path, "ae") : NULL;
    return path && !*f ? err_set(e, -errno, "%s: %s", path, strerror(errno)) : 0;
}

static int finish_out(FILE *f, const char *path, const struct hardware *h, struct err *e)
{
    if (!f)
        return 0;
    if (ftruncate(fileno(f), 0) && errno != EINVAL) /* a pipe has no length */
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    return write_profile(h, f, path, e);
}

/* What is here, without measuring. */
static void show_machine(bool json)
{
    static struct machine m; /* too large for a small stack */
    machine_read(&m, NULL);
    if (json) {
        json_t *o = machine_to_json(&m);
        json_dumpf(o, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(12));
        putchar('\n');
        json_decref(o);
        return;
    }
    machine_print_tree(&m, stdout);
    putchar('\n');
    machine_print_matrix(&m, stdout);
}

int cmd_topo(const struct options *o, struct err *e)
{
    struct hardware h;
    bool profile = o->measure || o->from_metrics;
    if (!profile && o->profile_out)
        return err_set(e, CMD_USAGE, "topo: -o writes what --measure measures: add it");
    if (!profile) {
        show_machine(o->json);
        return 0;
    }
    FILE *out;
    int rc = open_out(o->profile_out, &out, e);
    if (!rc)
        rc = o->from_metrics ? correct(o, &h, e) : measure(o, &h, e);
    if (!rc)
        rc = finish_out(out, o->profile_out, &h, e);
    if (out)
        fclose(out);
    if (!rc && o->json)
        return write_profile(&h, stdout, "standard output", e);
    if (!rc)
        print_profile(&h);
    return rc;
}
