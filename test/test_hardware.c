/* test_hardware.c - hardware profiles: written and read back, refused when wrong. */
#include "base/json.h"
#include "topo/hardware.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

static struct figure figure(double value) { return (struct figure){value, 0.05, SOURCE_MEASURED}; }

static struct curve curve(double y)
{
    return (struct curve){
        .n = 3, .x = {1, 8, 64}, .y = {y, y, 8 * y}, .error = 0.03, .source = SOURCE_FITTED};
}

static struct rates rates(int active)
{
    struct rates r = {.active = active};
    r.product[NUM_BF16] = curve(1e-11 / 3);
    r.product[NUM_INT8] = curve(1e-11 / 7);
    r.attend_byte_s[NUM_BF16] = figure(1e-11);
    r.attend_madd_s[NUM_BF16] = curve(1e-12);
    r.byte_s = figure(2e-11);
    r.op_s = figure(2.5e-6);
    r.experts[NUM_INT8] = curve(1e-11 / 11);
    r.draw_op_s = figure(1e-6), r.draw_s = figure(1e-9);
    r.rank_op_s = figure(2e-6), r.rank_s = figure(2e-9);
    r.split_s = figure(0.5e-6);
    return r;
}

/* One of everything that a profile may hold. */
static struct hardware whole(void)
{
    struct hardware h = {.name = "test",
                         .device = "core of a test",
                         .about = "made by hand: \"quoted\", and \xc3\xbc",
                         .date = "2026-11-21T10:00:00Z",
                         .kind = DEVICE_CPU,
                         .memory_bytes = {17179869184, 0, SOURCE_EXACT},
                         .reserve_bytes = {1e9, 0, SOURCE_GIVEN},
                         .memory_rate = {38.5e9, 0.1, SOURCE_MEASURED},
                         .price_hour = {0.25, 0, SOURCE_GIVEN},
                         .watts = {12, 0, SOURCE_DATASHEET},
                         .step_s = {3e-5, 0.2, SOURCE_MEASURED},
                         .seq_s = {1e-6, 0.2, SOURCE_FITTED},
                         .n_rates = 2,
                         .rates = {rates(1), rates(2)},
                         .n_level = 2};
    h.math_rate[NUM_BF16] = figure(4e11);
    h.level[0] =
        (struct level){.name = "shared memory", .size = 2, .same_host = true, .all_rows = true};
    h.level[0].n_collective = 3;
    h.level[0].collective[0] = (struct collective){
        COLLECTIVE_SUM, WAY_ONE_SHOT, 2, figure(1e-6), figure(1e-10), figure(2e-10), 65536};
    h.level[0].collective[1] = h.level[0].collective[0];
    h.level[0].collective[1].way = WAY_TWO_SHOT;
    h.level[0].collective[2] = h.level[0].collective[0];
    h.level[0].collective[2].op = COLLECTIVE_SEND;
    h.level[1] = (struct level){.name = "Ethernet", .size = 3, .n_collective = 1};
    h.level[1].collective[0] = h.level[0].collective[2];
    return h;
}

static void a_profile_is_read_back_as_it_was_written(void **state)
{
    struct hardware h = whole(), again;
    struct err e = {""};
    (void)state;
    json_t *o = hardware_to_json(&h);
    char *text = json_dumps(o, 0);
    json_t *parsed = json_parse(text, strlen(text), "text", &e);
    if (hardware_from_json(parsed, &again, &e))
        fail_msg("%s", e.text);
    json_t *second = hardware_to_json(&again);
    assert_true(json_equal(o, second));
    assert_true(again.rates[1].product[NUM_INT8].y[2] == 8e-11 / 7);
    assert_true(again.rates[1].experts[NUM_INT8].y[2] == 8e-11 / 11 && again.level[0].all_rows &&
                !again.level[1].all_rows && again.rates[0].rank_s.value == 2e-9);
    assert_true(again.memory_bytes.value == 17179869184);
    assert_int_equal(again.rates[0].product[NUM_F32].n, 0);
    assert_int_equal(again.math_rate[NUM_F32].source, SOURCE_NONE);
    json_decref(o), json_decref(parsed), json_decref(second);
    free(text);
}

/* ------------------------------------------------------------------------------- refused */

/* What stands at a path such as "levels/0/size". */
static json_t *at(json_t *o, const char *path)
{
    char part[64];
    while (o && *path) {
        size_t n = strcspn(path, "/");
        snprintf(part, sizeof(part), "%.*s", (int)n, path);
        o = json_is_array(o) ? json_array_get(o, (size_t)atoi(part)) : json_object_get(o, part);
        path += n + (path[n] == '/');
    }
    return o;
}

/* The whole profile with the field at folder/key set to the JSON value, or left out for "". */
static void refused(const char *folder, const char *key, const char *value, const char *says)
{
    struct hardware h = whole(), to;
    struct err e = {""};
    json_t *o = hardware_to_json(&h), *in = at(o, folder);
    json_t *v = *value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_non_null(in);
    if (json_is_array(in))
        json_array_set_new(in, (size_t)atoi(key), v);
    else if (v)
        json_object_set_new(in, key, v);
    else
        json_object_del(in, key);
    if (hardware_from_json(o, &to, &e) != -EINVAL)
        fail_msg("%s/%s = %s was taken", folder, key, value);
    if (!strstr(e.text, says))
        fail_msg("%s/%s = %s: \"%s\" does not say \"%s\"", folder, key, value, e.text, says);
    json_decref(o);
}

static void unknown_fields_are_refused_by_name_in_every_object(void **state)
{
    static const char *const objects[] = {"",
                                          "memory_bytes",
                                          "math_rate",
                                          "math_rate/bf16",
                                          "rates/0",
                                          "rates/1/product",
                                          "rates/1/product/bf16",
                                          "rates/0/attend_byte_s/bf16",
                                          "rates/0/attend_madd_s/bf16",
                                          "levels/0",
                                          "levels/0/collectives/1",
                                          "levels/0/collectives/1/latency_s"};
    (void)state;
    for (size_t i = 0; i < COUNT(objects); i++)
        refused(objects[i], "bandwith", "1", "unknown field");
}

static void every_field_of_a_wrong_type_is_refused_by_name(void **state)
{
    struct hardware h = whole();
    json_t *o = hardware_to_json(&h), *v;
    const char *key;
    (void)state;
    static const char *const objects[] = {"",
                                          "memory_bytes",
                                          "rates/0",
                                          "rates/0/product/bf16",
                                          "rates/0/byte_s",
                                          "levels/0",
                                          "levels/1",
                                          "levels/0/collectives/0",
                                          "levels/0/collectives/0/byte_s"};
    for (size_t i = 0; i < COUNT(objects); i++)
        json_object_foreach(at(o, objects[i]), key, v)
        {
            refused(objects[i], key, "[[]]", key);
            if (!json_is_string(v))
                refused(objects[i], key, "\"1\"", key);
        }
    json_decref(o);
}

static void needed_fields_are_asked_for(void **state)
{
    (void)state;
    static const char *const needed[][2] = {{"", "schema"},
                                            {"", "name"},
                                            {"", "device"},
                                            {"", "kind"},
                                            {"", "memory_bytes"},
                                            {"", "memory_rate"},
                                            {"", "rates"},
                                            {"", "levels"},
                                            {"memory_rate", "value"},
                                            {"memory_rate", "source"},
                                            {"rates/0", "active"},
                                            {"rates/0", "product"},
                                            {"rates/0", "byte_s"},
                                            {"rates/0", "op_s"},
                                            {"rates/0/product/bf16", "x"},
                                            {"rates/0/product/bf16", "y"},
                                            {"levels/0", "name"},
                                            {"levels/0", "size"},
                                            {"levels/0", "same_host"},
                                            {"levels/0", "collectives"},
                                            {"levels/0/collectives/0", "op"},
                                            {"levels/0/collectives/0", "way"},
                                            {"levels/0/collectives/0", "ranks"},
                                            {"levels/0/collectives/0", "latency_s"},
                                            {"levels/0/collectives/0", "byte_s"},
                                            {"levels/0/collectives/0", "far_byte_s"}};
    for (size_t i = 0; i < COUNT(needed); i++)
        refused(needed[i][0], needed[i][1], "", needed[i][1]);
}

static void profiles_without_sense_are_refused(void **state)
{
    (void)state;
    refused("", "schema", "2", "schema: 2 is not 1");
    refused("", "name", "\"\"", "name is empty");
    refused("", "kind", "\"tpu\"", "none of cpu, gpu");
    refused("memory_bytes", "value", "0", "memory_bytes: 0 is too little");
    refused("memory_bytes", "value", "-1", "memory_bytes: -1 is not a number from 0 on");
    refused("memory_bytes", "error", "11", "memory_bytes: an error of 11");
    refused("memory_bytes", "source", "\"guessed\"", "exact, datasheet, fitted, measured, given");
    refused("memory_bytes", "source", "\"none\"", "none of exact");
    refused("reserve_bytes", "value", "17179869184", "leaves nothing");
    refused("rates/1", "active", "1", "entry 1: active must ascend");
    refused("rates/0", "active", "0", "entry 0: active must ascend");
    refused("rates/0/product/bf16/x", "1", "1", "bf16: product: x must ascend");
    refused("rates/0/product/bf16/y", "1", "0", "bf16: product: y must be above 0");
    refused("rates/0/product/bf16", "y", "[1, 2]", "not 3 and 2");
    refused("rates/0", "attend_byte_s", "{}", "bf16: attend_byte_s is missing");
    refused("rates/0", "attend_madd_s", "{}", "bf16: attend_madd_s is missing");
    refused("rates/1/product", "int8", "", "int8: product is known with some");
    refused("levels/0", "size", "0", "levels: entry 0: size");
    refused("levels/1", "size", "1048576", "devices");
    refused("levels/0/collectives/1", "way", "\"one-shot\"", "given twice");
    refused("levels/0/collectives/1", "way", "\"tree\"", "one-shot, two-shot, ring");
    refused("levels/1", "collectives", "[]", "entry 1: collectives: a send of way one-shot");
    refused("levels/0/collectives/1", "ranks", "1", "1 is not 2 or more");
    refused("levels/0/collectives/1", "knee_bytes", "-1", "-1 is not");
}

static void a_gpu_has_one_entry_of_rates(void **state)
{
    (void)state;
    refused("", "kind", "\"gpu\"", "GPUs have one entry");
}

static void levels_of_a_host_stand_inside_those_between_hosts(void **state)
{
    struct hardware h = whole();
    struct err e = {""};
    (void)state;
    h.level[0].same_host = false, h.level[1].same_host = true;
    assert_int_equal(hardware_check(&h, &e), -EINVAL);
    assert_non_null(strstr(e.text, "levels: entry 1 is inside a host"));
}

/* ------------------------------------------------------------------------------- made of a few */

static struct hardware_ask dgx(void)
{
    return (struct hardware_ask){.devices = 8,
                                 .memory_bytes = 80 * 0x1p30,
                                 .memory_rate = 2039e9,
                                 .math_rate = 312e12,
                                 .link_rate = 300e9};
}

static void few_numbers_make_a_profile_that_keeps_them(void **state)
{
    struct hardware_ask ask = dgx();
    struct hardware h;
    struct err e = {""};
    (void)state;
    if (hardware_simple(&ask, &h, &e))
        fail_msg("%s", e.text);
    const struct curve *c = &h.rates[0].product[NUM_BF16];
    /* One row: two bytes per weight at 87 % of the memory's rate; 4096: arithmetic at 80 %. */
    assert_true(fabs(c->y[0] * 2039e9 * 0.87 / 2 - 1) < 1e-6);
    assert_true(fabs(c->y[12] * 312e12 * 0.80 / (2 * 4096) - 1) < 1e-4);
    assert_true(fabs(h.rates[0].product[NUM_INT4].y[0] * 2039e9 * 0.87 / (4.25 / 8) - 1) < 1e-6);
    assert_int_equal(h.level[0].size, 8);
    assert_int_equal(h.level[0].collective[COLLECTIVE_SEND].op, COLLECTIVE_SEND);
    assert_true(h.level[0].collective[COLLECTIVE_SEND].byte_s.value == 1 / 300e9);
}

static void missing_numbers_are_asked_for(void **state)
{
    struct hardware h;
    struct err e = {""};
    (void)state;
    struct hardware_ask ask = dgx();
    ask.memory_rate = 0;
    assert_int_equal(hardware_simple(&ask, &h, &e), -EINVAL);
    assert_non_null(strstr(e.text, "three numbers are needed"));
    ask = dgx(), ask.link_rate = 0;
    assert_int_equal(hardware_simple(&ask, &h, &e), -EINVAL);
    assert_non_null(strstr(e.text, "8 devices need the rate of the link"));
    ask.devices = 1;
    assert_int_equal(hardware_simple(&ask, &h, &e), 0);
    assert_int_equal(hardware_devices(&h), 1);
}

/* ------------------------------------------------------------------------------- shipped */

static void use_shipped(void) { setenv("TANDEM_PROFILES", SOURCE_DIR "/profiles", 1); }

static void every_shipped_profile_loads_by_its_name(void **state)
{
    struct hardware h;
    struct err e = {""};
    int n = 0;
    DIR *d = opendir(SOURCE_DIR "/profiles");
    (void)state;
    assert_non_null(d);
    use_shipped();
    for (struct dirent *f; (f = readdir(d));) {
        char name[64];
        if (f->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(f->d_name, "."), f->d_name);
        if (hardware_load(name, &h, &e))
            fail_msg("%s", e.text);
        assert_string_equal(h.name, name);
        assert_true(*h.about);
        n++;
    }
    closedir(d);
    assert_int_equal(n, 14);
}

static void memory_of_shipped_gpus_is_what_drivers_show(void **state)
{
    static const struct {
        const char *name;
        double mib;
        int devices;
    } known[] = {{"dgx-a100-80", 81920, 8},
                 {"dgx-h100", 81559, 8},
                 {"dgx-h100-x2-ib", 81559, 16},
                 {"8x-l40s-pcie", 46068, 8}};
    struct hardware h;
    struct err e = {""};
    (void)state;
    use_shipped();
    for (size_t i = 0; i < COUNT(known); i++) {
        if (hardware_load(known[i].name, &h, &e))
            fail_msg("%s", e.text);
        int devices = 1;
        for (int l = 0; l < h.n_level; l++)
            devices *= h.level[l].size;
        assert_true(h.memory_bytes.value == known[i].mib * 0x1p20);
        assert_int_equal(devices, known[i].devices);
    }
}

static void an_unknown_name_lists_the_known_ones_and_asks_for_three_numbers(void **state)
{
    struct hardware h;
    struct err e = {""};
    (void)state;
    use_shipped();
    assert_int_equal(hardware_load("dgx-b300", &h, &e), -ENOENT);
    assert_non_null(strstr(e.text, "\"dgx-b300\""));
    assert_non_null(strstr(e.text, "dgx-a100-40"));
    assert_non_null(strstr(e.text, "xeon-6980p"));
    assert_non_null(strstr(e.text, "memory, bytes a second and operations a second"));
    assert_non_null(strstr(e.text, "`tandem topo`"));
    assert_int_equal(hardware_load("", &h, &e), -ENOENT);
    assert_int_equal(hardware_load("../profiles/dgx-h100", &h, &e), -ENOENT); /* a path, and none */
}

static void a_file_with_an_error_is_named_with_its_field(void **state)
{
    struct hardware h;
    struct err e = {""};
    char path[] = "/tmp/tandem-test-XXXXXX";
    int fd = mkstemp(path);
    (void)state;
    assert_int_equal(write(fd, "{\"schema\": 1, \"speed\": 3}", 25), 25);
    close(fd);
    assert_int_equal(hardware_load(path, &h, &e), -EINVAL);
    assert_non_null(strstr(e.text, path));
    assert_non_null(strstr(e.text, "unknown field \"speed\""));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_profile_is_read_back_as_it_was_written),
        cmocka_unit_test(unknown_fields_are_refused_by_name_in_every_object),
        cmocka_unit_test(every_field_of_a_wrong_type_is_refused_by_name),
        cmocka_unit_test(needed_fields_are_asked_for),
        cmocka_unit_test(profiles_without_sense_are_refused),
        cmocka_unit_test(a_gpu_has_one_entry_of_rates),
        cmocka_unit_test(levels_of_a_host_stand_inside_those_between_hosts),
        cmocka_unit_test(few_numbers_make_a_profile_that_keeps_them),
        cmocka_unit_test(missing_numbers_are_asked_for),
        cmocka_unit_test(every_shipped_profile_loads_by_its_name),
        cmocka_unit_test(memory_of_shipped_gpus_is_what_drivers_show),
        cmocka_unit_test(an_unknown_name_lists_the_known_ones_and_asks_for_three_numbers),
        cmocka_unit_test(a_file_with_an_error_is_named_with_its_field),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
