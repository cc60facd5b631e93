/* test_loads.c - loads of experts as a file. */
#include "base/json.h"
#include "sched/loads.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Layers 1 and 2 of three have 4 experts. */
static struct model mixture(void)
{
    struct model m = {.n_layer = 3, .experts = {.n = 4, .top = 2}};
    m.kind[1].dense = true;
    m.kind_of[0] = 1;
    return m;
}

static int read_text(const char *text, const struct model *m, double *rows, struct err *e)
{
    json_t *o = json_parse(text, strlen(text), "loads", e);
    assert_non_null(o);
    int code = loads_from_json(o, m, rows, e);
    json_decref(o);
    return code;
}

static void rows_are_read_by_layer_and_the_rest_is_zero(void **state)
{
    static const double want[12] = {[8] = 5, [9] = 0, [10] = 0.5, [11] = 7};
    struct model m = mixture();
    double rows[12];
    struct err e;
    (void)state;
    memset(rows, 0x7f, sizeof(rows));
    assert_int_equal(read_text("{\"schema\":1,\"experts\":4,\"runs\":2,\"layers\":["
                               "{\"layer\":2,\"rows\":[5,0,0.5,7],\"lambda\":1.5}]}",
                               &m, rows, &e),
                     0);
    assert_memory_equal(rows, want, sizeof(want));
}

static void what_does_not_fit_the_model_is_refused_in_one_sentence(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"schema\":1,\"experts\":8,\"layers\":[]}",
         "these are loads of 8 experts; the model has 4"},
        {"{\"experts\":4,\"layers\":[]}", "loads of experts must say \"schema\": 1"},
        {"{\"schema\":1,\"experts\":4}", "loads of experts are an object with a list of layers"},
        {"{\"schema\":1,\"experts\":4,\"layers\":[{\"layer\":0,\"rows\":[1,1,1,1]}]}",
         "layer 0 of the model has no experts"},
        {"{\"schema\":1,\"experts\":4,\"layers\":[{\"rows\":[1,1,1,1]}]}",
         "every layer must say its number"},
        {"{\"schema\":1,\"experts\":4,\"layers\":[{\"layer\":1,\"rows\":[1,1,1]}]}",
         "layer 1: rows must be a list of 4 numbers, one per expert"},
        {"{\"schema\":1,\"experts\":4,\"layers\":[{\"layer\":1,\"rows\":[1,1,-1,1]}]}",
         "layer 1: rows of expert 2 must be a count"},
        {"{\"schema\":1,\"experts\":4,\"layers\":[{\"layer\":1,\"rows\":[1,1,1,\"x\"]}]}",
         "layer 1: rows of expert 3 must be a count"},
        {"{\"schema\":1,\"experts\":4,\"layers\":[7]}", "layers must be a list of objects"},
    };
    struct model m = mixture();
    double rows[12];
    struct err e;
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(read_text(bad[i].text, &m, rows, &e), -EINVAL);
        assert_string_equal(e.text, bad[i].says);
    }
    m.experts.n = 0;
    assert_int_equal(read_text("{}", &m, rows, &e), -EINVAL);
    assert_string_equal(e.text, "the model has no experts: leave the loads out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_read_by_layer_and_the_rest_is_zero),
        cmocka_unit_test(what_does_not_fit_the_model_is_refused_in_one_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
