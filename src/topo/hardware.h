/* hardware.h - what the devices that a plan may use can do: the hardware profile.
 *
 * One kind of device (a GPU, or one core of a CPU), how many of them stand together, and how ranks
 * on them talk. Every number carries where it comes from and how sure it is. Plain data without
 * pointers; written by `tandem topo`, or shipped (profiles/), or made of the few numbers a user
 * gives. Prices are read from here and nowhere else.
 *
 * Costs are seconds per unit, so that they add: a rate is 1 over its cost. All byte counts are
 * bytes; a GB is 1e9 of them, a GiB 2^30.
 */
#ifndef TANDEM_TOPO_HARDWARE_H
#define TANDEM_TOPO_HARDWARE_H

#include "base/mat.h"

#include <jansson.h>

enum source {
    SOURCE_NONE,      /* the figure is not known */
    SOURCE_EXACT,     /* follows from a standard or from arithmetic */
    SOURCE_DATASHEET, /* the vendor's number, perhaps times a usual efficiency (said in `about`) */
    SOURCE_FITTED,    /* to measurements that others published */
    SOURCE_MEASURED,  /* here, by `tandem topo` */
    SOURCE_GIVEN,     /* by the user */
    SOURCE_COUNT
};
const char *source_name(enum source s);

struct figure {
    double value;
    double error; /* relative: 0.05 means that nine of ten repeats lie within 5 %; 0: exact */
    enum source source;
};

/* y at x, straight lines between logarithms; beyond the ends the slope of the last pair goes on
 * downwards and upwards, no steeper than in proportion: the pair may be noise. Points ascend in x;
 * all are > 0. n 0: not known. */
enum { CURVE_MAX = 24 };
struct curve {
    int n;
    double x[CURVE_MAX], y[CURVE_MAX];
    double error;
    enum source source;
};
double curve_at(const struct curve *c, double x);

/* What one device does while `active` of its host are busy (on a CPU they share its memory; GPUs
 * have one entry with active 1, which holds for any number). */
struct rates {
    int active;
    /* Seconds per weight (rows times columns of the matrix) of a product with x rows, the weights
     * coming from memory: flat while memory is the limit, then rising with x. Per weight format. */
    struct curve product[NUM_COUNT];
    /* The same of a layer's experts, whose products are grouped: per weight of those experts that
     * rows were sent to, with x rows of each. n 0: as other products. */
    struct curve experts[NUM_COUNT];
    /* Attention, per format of the KV cache: seconds per byte of keys and values read, and seconds
     * per multiply-add of scores and outputs when a sequence has x rows in the step. An operation
     * takes the larger of the two; and attend_row_s for every row of every head of queries. */
    struct figure attend_byte_s[NUM_COUNT];
    struct curve attend_madd_s[NUM_COUNT];
    struct figure attend_row_s;
    struct figure byte_s; /* of what else reads and writes activations */
    struct figure op_s;   /* fixed, of every operation: launch, or meeting of threads */
    /* Drawing tokens, by the rank that has the logits: once in a step, and per row and word of the
     * vocabulary. Of the likeliest, as steps are priced; and of those within a top-k or top-p. */
    struct figure draw_op_s, draw_s, rank_op_s, rank_s;
    struct figure split_s; /* fixed, of every operation per further thread of a rank; CPUs */
};

/* One algorithm of one operation among `ranks` devices: with w bytes that a rank must read
 * (collective_reads()),
 *     latency_s + min(w, knee) * byte_s + max(0, w - knee) * far_byte_s
 * knee_bytes 0: byte_s holds for all. The cheapest algorithm that is listed is taken. Every level
 * lists a send (2 ranks, one-shot) at least: the latency of a message of no bytes, and its bytes.
 */
enum collective_op {
    COLLECTIVE_SUM,
    COLLECTIVE_SCATTER_SUM,
    COLLECTIVE_GATHER,
    COLLECTIVE_ALL_TO_ALL,
    COLLECTIVE_SEND,
    COLLECTIVE_COUNT
};
enum collective_way { WAY_ONE_SHOT, WAY_TWO_SHOT, WAY_RING, WAY_COUNT };
const char *collective_name(enum collective_op op); /* "sum", "scatter-sum", "gather", ... */
const char *way_name(enum collective_way way);      /* "one-shot", "two-shot", "ring" */

struct collective {
    enum collective_op op;
    enum collective_way way;
    int ranks;
    struct figure latency_s, byte_s, far_byte_s;
    double knee_bytes;
};

/* Devices stand in groups within groups; level 0 is the innermost. Two ranks talk over the lowest
 * level that holds both. */
enum { LEVELS_MAX = 4, COLLECTIVES_MAX = 48, RATES_MAX = 6 };
struct level {
    char name[32]; /* "NVSwitch", "PCIe", "sockets", "InfiniBand NDR", "shared memory" */
    int size;      /* of the groups one level below (of devices at level 0) it joins so many */
    bool same_host;
    bool all_rows; /* in an all-to-all of experts all rows travel, needed or not */
    int n_collective;
    struct collective collective[COLLECTIVES_MAX];
};

enum device_kind { DEVICE_CPU, DEVICE_GPU };

struct hardware {
    char name[64];   /* "dgx-a100-80" */
    char device[64]; /* "A100 SXM 80 GB", "core of an AMD EPYC" */
    char about[512]; /* where the numbers come from, in words */
    char date[32];   /* of measuring; ISO 8601 */
    enum device_kind kind;
    struct figure memory_bytes;  /* of a device; of a CPU: of the whole host, shared by its cores */
    struct figure reserve_bytes; /* of that, not ours: driver, runtime, the rest of the system */
    struct figure memory_rate;   /* bytes a second of a device alone (a CPU: of all its cores) */
    struct figure math_rate[NUM_COUNT]; /* operations a second at most, by format of the weights */
    struct figure price_hour;           /* US dollars an hour, of a device */
    struct figure watts;                /* of a device under load */
    struct figure step_s; /* host work of a step: choosing, sending, taking the result */
    struct figure seq_s;  /* of it per sequence */
    int n_rates;
    struct rates rates[RATES_MAX]; /* ascending by active */
    int n_level;
    struct level level[LEVELS_MAX];
};

/* Devices in all. */
int hardware_devices(const struct hardware *h);

/* Costs of one device while so many are busy: between two entries by straight lines. */
void hardware_rates(const struct hardware *h, int active, struct rates *to);

/* Which devices act together: `first`, first + stride, ... */
struct gang {
    int first, ranks, stride;
    int others; /* partial sums of the others that each has to read; 0: one of every other rank */
};

/* What one of the ranks has to read, of a mat of `bytes` in all (P ranks, N bytes; as comm/shm.c
 * and Thakur, Rabenseifner and Gropp 2005 do it). Measured collectives are fitted over it.
 *     sum: one-shot (P-1) N; two-shot and ring 2 (P-1)/P N
 *     scatter-sum, gather, all-to-all: (P-1)/P N        send: N */
double collective_reads(enum collective_op op, enum collective_way way, const struct gang *g,
                        double bytes);

/* Seconds of an operation on a mat of `bytes` among the devices, by the cheapest way that the
 * lowest level which holds all of them lists. For numbers of ranks that are not listed: the nearest
 * that are, latencies by the logarithm. A level without the operation takes the ring's formula over
 * its sends. A sum over several groups of the level below is also tried as sums inside them and
 * between them. 0 for one rank. */
double hardware_collective(const struct hardware *h, enum collective_op op, const struct gang *g,
                           double bytes);

/* Do all rows travel in an all-to-all of these devices? */
bool hardware_all_rows(const struct hardware *h, const struct gang *g);

/* All links slower by a latency per call and seconds per byte that a rank reads: what comm/delay.h
 * does to a group. */
struct link {
    double latency_s, byte_s;
};
void hardware_slower(struct hardware *h, struct link by);

/* Refuse a profile that makes no sense, naming the field. */
int hardware_check(const struct hardware *h, struct err *e);

/* JSON form (docs/HARDWARE.md), schema number inside. Reading refuses unknown and mistyped fields
 * and ends with hardware_check. */
json_t *hardware_to_json(const struct hardware *h);
int hardware_from_json(const json_t *o, struct hardware *h, struct err *e);

/* A profile of GPUs of which only these numbers are known; every other figure is a usual one. */
struct hardware_ask {
    const char *name;                 /* NULL: "given" */
    int devices;                      /* side by side, each joined to each */
    double memory_bytes, memory_rate; /* of a device; bytes, and a second */
    double math_rate;                 /* operations a second with 16-bit weights */
    double link_rate, link_latency_s; /* one way, of a device; latency 0: the usual 5 us */
};
/* Refuses what is 0 and needed: the link's rate only with several devices. */
int hardware_simple(const struct hardware_ask *ask, struct hardware *h, struct err *e);

/* A profile by name of a shipped one ("dgx-h100") or by path of a file. -ENOENT with the names of
 * those that are shipped. */
int hardware_load(const char *name, struct hardware *h, struct err *e);

#endif
