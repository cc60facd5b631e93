/* facts.h - what is worth knowing about a chosen layout: how sure it is, what it costs, what would
 * change it, what is lost with a device. Numbers only; explain.h puts them into words. */
#ifndef TANDEM_PREDICT_FACTS_H
#define TANDEM_PREDICT_FACTS_H

#include "predict/search.h"

enum {
    FACT_FRONT = 24,
    FACT_WHATIF = 12,
    FACT_TP = 6,
    FACT_EXPERTS = 16,
    FACT_PROMPT = 1024, /* rows of a step that is all prompt */
    FACT_SIMULATED = 20
};

/* Throughput against speed for one client: nobody is better in both. */
struct point {
    const struct choice *choice;
    int batch;      /* sequences that draw, of one replica */
    double tpot_s;  /* of decode steps with prompts in between as the load has them */
    double tok_s;   /* answers, per device */
    double dollars; /* per million tokens of answers; 0: no price */
};

/* Another question, and its answer. */
struct whatif {
    char what[48];
    int devices, hosts; /* 0: nothing meets it */
    char name[96];
};

/* Sums of one decode step as slices get more. */
struct sums {
    int tp;
    double step_s, comm_s;
    double late_s; /* what the slowest step of 100 takes longer when sums vary by their error */
};

/* Steps of a mixture with its experts so divided: one sequence drawing, many, a prompt; and of each
 * what collectives take. */
struct experts_cut {
    const struct shape *shape;
    double one_s, one_comm_s, many_s, many_comm_s, prompt_s, prompt_comm_s;
    size_t weights; /* bytes, of the rank with most */
};

/* The fastest cut of the same devices, as something grows. */
struct flip {
    bool found;
    double at; /* sequences at once; or a factor on the rate of links */
    char from[96], to[96];
};

struct simulated {
    const struct choice *choice;
    double ttft_s, ttft_tail_s, tpot_s, tpot_tail_s, output_tok_s;
    bool good;
};

struct facts {
    struct plan plan;                              /* of the chosen */
    double ttft_error, tpot_error, capacity_error; /* relative, one standard deviation */
    double p_good, p_best; /* probability that bounds are kept; that the runner-up is no better */
    const struct choice *runner_up; /* of another cut; NULL: none */
    struct step_price step;         /* a usual decode step of the chosen */
    struct point front[FACT_FRONT];
    int n_front;
    struct whatif whatif[FACT_WHATIF];
    int n_whatif;
    struct sums sums[FACT_TP];
    int n_sums;
    struct experts_cut experts[FACT_EXPERTS]; /* all on the same slices */
    int n_experts, experts_batch;
    struct flip by_batch, by_link;
    double link_rate;    /* bytes a second that a rank reads in a sum of the chosen plan; 0: none */
    double lost_replica; /* capacity while one replica is down */
    double lost_again;   /* and when what is left of its host is cut anew; 0: it cannot be */
    char lost_name[96];
    double dollars_hour, dollars_million, kwh_million; /* 0: unknown */
    struct pools pools;
    struct simulated simulated[FACT_SIMULATED];
    int n_simulated;
};

/* The layout that was chosen is s->best[0]. Simulating may put another one there, see simulate().
 */
void facts_of(const struct question *q, struct search *s, struct facts *to);

/* Parts of it, in files of their own. */
void facts_front(const struct question *q, const struct search *s, struct facts *to);
void facts_experts(const struct question *q, const struct search *s, struct facts *to);
void facts_flips(const struct question *q, const struct search *s, struct facts *to);
bool facts_replica_on(const struct question *q, const struct choice *c, const struct hardware *h,
                      struct replica *r); /* pricer_free() ends r->pricer; false: no prices */

/* Simulate the best layouts on one replica's part of the load and let the first that keeps the
 * bounds be the chosen one; when none does, take more hosts. Does nothing for demands that the
 * closed forms cannot meet either. seed: of the arrivals. */
void facts_simulate(const struct question *q, struct search *s, struct facts *to, uint64_t seed);

#endif
