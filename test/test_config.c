/* test_config.c - config.json: what is read, and what is refused by which words. */
#include "model/folder.h"
#include "plan/plan.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

/* A whole config with one field replaced or added. */
static int parse(const char *field, struct model *m, struct notes *notes, struct err *e)
{
    static const char whole[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 64, \"num_hidden_layers\": "
        "2, "
        "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 128, "
        "\"vocab_size\": 300, \"max_position_embeddings\": 512, \"hidden_act\": \"silu\"}";
    char change[700];
    struct generation g;
    snprintf(change, sizeof(change), "{%s}", field);
    json_t *o = json_loads(whole, 0, NULL), *with = json_loads(change, 0, NULL);
    assert_non_null(with);
    json_object_update(o, with);
    char *text = json_dumps(o, 0);
    int rc = model_parse(text, strlen(text), NULL, 0, m, &g, notes, e);
    free(text);
    json_decref(o);
    json_decref(with);
    return rc;
}

static const struct {
    const char *field, *words;
} refused[] = {
    {"\"hidden_size\": 0", "hidden_size"},
    {"\"hidden_size\": -64", "hidden_size"},
    {"\"hidden_size\": 1e18", "hidden_size"},
    {"\"hidden_size\": 64.5", "hidden_size"},
    {"\"hidden_size\": \"64\"", "hidden_size"},
    {"\"hidden_size\": null", "hidden_size is missing"},
    {"\"num_hidden_layers\": 0", "num_hidden_layers"},
    {"\"num_hidden_layers\": 100000", "num_hidden_layers"},
    {"\"num_attention_heads\": 0", "num_attention_heads"},
    {"\"num_attention_heads\": 5", "num_attention_heads 5"},
    {"\"num_key_value_heads\": 3", "num_key_value_heads 3"},
    {"\"num_key_value_heads\": 0", "num_key_value_heads"},
    {"\"intermediate_size\": 999999999999", "intermediate_size"},
    {"\"vocab_size\": -1", "vocab_size"},
    {"\"head_dim\": 15", "head_dim 15"},
    {"\"head_dim\": []", "head_dim"},
    {"\"rms_norm_eps\": -1", "rms_norm_eps"},
    {"\"rope_theta\": \"x\"", "rope_theta"},
    {"\"rope_scaling\": 3", "rope_scaling"},
    {"\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2}", "longrope"},
    {"\"rope_scaling\": {\"type\": \"linear\"}", "factor is missing"},
    {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": -2}", "factor"},
    {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 4, "
     "\"high_freq_factor\": 1}",
     "high_freq_factor"},
    {"\"hidden_act\": \"gelu\"", "gelu"},
    {"\"partial_rotary_factor\": 0.5", "partial_rotary_factor"},
    {"\"quantization_config\": {\"bits\": 4}", "quantised"},
    {"\"quantization_config\": {\"quant_method\": \"gptq\"}", "quantised"},
    {"\"quantization_config\": 7", "quantised"},
    {"\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [64, 64]}",
     "[128, 128]"},
    {"\"quantization_config\": {\"quant_method\": \"fp8\", \"modules_to_not_convert\": \"x\"}",
     "list"},
    {"\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
     "\"pack-quantized\"}",
     "float-quantized"},
    {"\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
     "\"float-quantized\", \"config_groups\": {\"group_0\": {\"weights\": {\"type\": \"int\", "
     "\"num_bits\": 8}}}}",
     "float"},
    {"\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
     "\"float-quantized\", \"config_groups\": {\"group_0\": {\"weights\": {\"type\": \"float\", "
     "\"num_bits\": 8, \"strategy\": \"group\"}}}}",
     "channel"},
    {"\"tie_word_embeddings\": 1", "tie_word_embeddings"},
    {"\"architectures\": [\"BertModel\"]", "BertModel"},
    {"\"architectures\": [\"BertModel\"]", "LlamaForCausalLM, MistralForCausalLM, "
                                           "Qwen2ForCausalLM, Qwen3ForCausalLM"},
    {"\"architectures\": []", "none named"},
    {"\"eos_token_id\": \"x\"", "eos_token_id"},
    {"\"eos_token_id\": [1, -2]", "eos_token_id"},
};

static void absurd_fields_are_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        struct model m;
        struct notes notes;
        struct err e = {""};
        if (!parse(refused[i].field, &m, &notes, &e))
            fail_msg("%s is accepted", refused[i].field);
        if (!strstr(e.text, refused[i].words))
            fail_msg("%s: \"%s\" does not say \"%s\"", refused[i].field, e.text, refused[i].words);
    }
}

/* Weights of e4m3, and how many notes there are then. */
static const struct {
    const char *field;
    int notes;
} fp8_configs[] = {
    {"\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": \"dynamic\", "
     "\"weight_block_size\": [128, 128], \"modules_to_not_convert\": [\"lm_head\", "
     "\"model.layers.0.mlp.gate\", \"model.layers.0.input_layernorm\"]}",
     0},
    {"\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": \"static\"}", 1},
    {"\"quantization_config\": {\"quant_method\": \"fbgemm_fp8\", \"modules_to_not_convert\": "
     "[\"lm_head\", \"model.layers.0.self_attn.q_proj\"]}",
     1},
    {"\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
     "\"float-quantized\", \"ignore\": [\"lm_head\", \"re:.*mlp.gate$\"], \"kv_cache_scheme\": "
     "null, "
     "\"config_groups\": {\"group_0\": {\"weights\": {\"type\": \"float\", \"num_bits\": 8, "
     "\"strategy\": \"channel\"}, \"input_activations\": {\"dynamic\": true}}}}",
     0},
    {"\"quantization_config\": null", 0},
};

static void weights_of_e4m3_are_read_and_what_is_done_otherwise_is_noted(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(fp8_configs); i++) {
        struct model m;
        struct notes notes;
        struct err e = {""};
        if (parse(fp8_configs[i].field, &m, &notes, &e))
            fail_msg("%s: %s", fp8_configs[i].field, e.text);
        assert_int_equal(notes.n, fp8_configs[i].notes);
    }
}

/* A mixture, whole but for what is said. */
static const struct {
    const char *field, *words;
} refused_mixtures[] = {
    {"\"num_experts\": 0", "num_experts"},
    {"\"num_local_experts\": 6", "num_experts 8 and num_local_experts 6 differ"},
    {"\"num_local_experts\": 0", "num_local_experts"},
    {"\"num_experts\": null", "num_experts is missing"},
    {"\"num_experts\": 100000", "num_experts"},
    {"\"num_experts_per_tok\": 9", "num_experts_per_tok 9 is more than the 8 experts"},
    {"\"num_experts_per_tok\": 0", "num_experts_per_tok"},
    {"\"moe_intermediate_size\": null", "moe_intermediate_size is missing"},
    {"\"shared_expert_intermediate_size\": 0", "shared_expert_intermediate_size"},
    {"\"decoder_sparse_step\": 3", "no layer that has them"},
    {"\"mlp_only_layers\": [0, 1]", "no layer that has them"},
    {"\"mlp_only_layers\": [2]", "mlp_only_layers: entry 0"},
    {"\"mlp_only_layers\": 1", "mlp_only_layers"},
};

static void mixtures_that_contradict_themselves_are_refused(void **state)
{
    static const char whole[] = "\"architectures\": [\"Qwen2MoeForCausalLM\"], \"num_experts\": 8, "
                                "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, "
                                "\"shared_expert_intermediate_size\": 48";
    struct model m;
    struct notes notes;
    struct err e = {""};
    char text[600];
    (void)state;
    assert_int_equal(parse(whole, &m, &notes, &e), 0);
    assert_int_equal(notes.n, 0);
    assert_true(m.experts.n == 8 && m.experts.top == 2 && m.experts.ff == 32 && m.n_ff == 128);
    assert_true(m.experts.shared_ff == 48 && m.experts.shared_gate && !m.experts.renorm);
    for (size_t i = 0; i < COUNT(refused_mixtures); i++) {
        snprintf(text, sizeof(text), "%s, %s", whole, refused_mixtures[i].field);
        if (!parse(text, &m, &notes, &e))
            fail_msg("%s is accepted", refused_mixtures[i].field);
        if (!strstr(e.text, refused_mixtures[i].words))
            fail_msg("%s: \"%s\"", refused_mixtures[i].field, e.text);
    }
}

static void the_number_of_experts_has_two_names(void **state)
{
    static const char *const name[] = {"num_experts", "num_local_experts"};
    static const char *const arch[] = {"Mixtral", "Qwen3Moe"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct model m;
        struct notes notes;
        struct err e;
        char text[200];
        snprintf(text, sizeof(text),
                 "\"architectures\": [\"%sForCausalLM\"], \"%s\": 6, "
                 "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32",
                 arch[i / 2], name[i % 2]);
        if (parse(text, &m, &notes, &e))
            fail_msg("%s: %s", text, e.text);
        assert_int_equal(m.experts.n, 6);
    }
}

/* Without layer_types each family has a rule of its own; 'w' is a layer with a window. */
static void windows_follow_the_rule_of_the_family(void **state)
{
    static const char experts[] = "\"num_experts\": 6, \"num_experts_per_tok\": 2, "
                                  "\"moe_intermediate_size\": 32, "
                                  "\"shared_expert_intermediate_size\": 32, ";
    static const char flags[] = "\"use_sliding_window\": true, \"max_window_layers\": 3, ";
    static const struct {
        const char *arch, *flags, *want;
    } family[] = {{"Llama", flags, "......"},    {"Mistral", "", "wwwwww"},
                  {"Qwen2", flags, "...www"},    {"Qwen3", flags, "...www"},
                  {"Qwen2Moe", flags, "w.w..."}, {"Qwen3Moe", flags, "wwwwww"},
                  {"Mixtral", "", "wwwwww"},     {"Qwen3Moe", "", "......"}};
    (void)state;
    for (size_t i = 0; i < COUNT(family); i++) {
        struct model m;
        struct notes notes;
        struct err e;
        char text[400], got[7] = "";
        snprintf(text, sizeof(text),
                 "%s%s\"architectures\": [\"%sForCausalLM\"], \"num_hidden_layers\": 6, "
                 "\"sliding_window\": 64",
                 experts, family[i].flags, family[i].arch);
        if (parse(text, &m, &notes, &e))
            fail_msg("%s: %s", family[i].arch, e.text);
        for (int l = 0; l < 6; l++)
            got[l] = m.kind[m.kind_of[l]].window == 64 ? 'w' : '.';
        if (strcmp(got, family[i].want))
            fail_msg("%s: %s, not %s", family[i].arch, got, family[i].want);
    }
}

static void layers_without_experts_are_found(void **state)
{
    struct model m;
    struct notes notes;
    struct err e;
    (void)state;
    assert_int_equal(parse("\"architectures\": [\"Qwen3MoeForCausalLM\"], \"num_experts\": 8, "
                           "\"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32, "
                           "\"num_hidden_layers\": 6, \"decoder_sparse_step\": 2, "
                           "\"mlp_only_layers\": [3]",
                           &m, &notes, &e),
                     0);
    for (int l = 0; l < 6; l++)
        assert_int_equal(model_sparse(&m, l), l == 1 || l == 5);
}

static void missing_sizes_are_named(void **state)
{
    static const char *const text[] = {"", "{", "[]", "{}", "null", "{\"architectures\": 3}"};
    (void)state;
    for (size_t i = 0; i < COUNT(text); i++) {
        struct model m;
        struct generation g;
        struct notes notes;
        struct err e = {""};
        assert_true(model_parse(text[i], strlen(text[i]), NULL, 0, &m, &g, &notes, &e) < 0);
        assert_non_null(strstr(e.text, "config.json"));
    }
}

static void rope_scalings_are_read(void **state)
{
    static const struct {
        const char *field;
        enum rope_scaling want;
    } kind[] = {
        {"", ROPE_PLAIN},
        {"\"rope_scaling\": null", ROPE_PLAIN},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}", ROPE_LINEAR},
        {"\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}", ROPE_DYNAMIC},
        {"\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}", ROPE_YARN},
        {"\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4, \"rope_theta\": 5000}",
         ROPE_YARN},
        {"\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
         "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 128}",
         ROPE_LLAMA3},
    };
    (void)state;
    for (size_t i = 0; i < COUNT(kind); i++) {
        struct model m;
        struct notes notes;
        struct err e;
        if (parse(kind[i].field, &m, &notes, &e))
            fail_msg("%s: %s", kind[i].field, e.text);
        assert_int_equal(m.kind[0].rope.scaling, kind[i].want);
        assert_int_equal(notes.n, 0);
        if (strstr(kind[i].field, "5000"))
            assert_true(m.kind[0].rope.theta == 5000);
    }
}

static void unknown_fields_are_noted_and_ignored(void **state)
{
    struct model m;
    struct notes notes;
    struct err e;
    (void)state;
    assert_int_equal(parse("\"wormholes\": 7, \"use_cache\": true", &m, &notes, &e), 0);
    assert_int_equal(notes.n, 1);
    assert_non_null(strstr(notes.text[0], "wormholes"));
}

/* Parameters in millions, as published; every other config of the folder is refused. */
static const struct {
    const char *file;
    int millions;
} published[] = {
    {"01-ai--Yi-34B.json", 34389},
    {"Qwen--Qwen2-72B.json", 72706},
    {"Qwen--Qwen2.5-32B-Instruct.json", 32764},
    {"Qwen--Qwen2.5-7B-Instruct.json", 7616},
    {"Qwen--Qwen3-0.6B.json", 596},
    {"Qwen--Qwen3-1.7B.json", 1721},
    {"Qwen--Qwen3-14B.json", 14768},
    {"Qwen--Qwen3-32B.json", 32762},
    {"Qwen--Qwen3-32B-FP8.json", 32762},
    {"Qwen--Qwen3-235B-A22B-FP8.json", 235094},
    {"Qwen--Qwen3-8B.json", 8191},
    {"allenai--OLMoE-1B-7B-0125-Instruct.json", 6919},
    {"Qwen--Qwen1.5-MoE-A2.7B-Chat.partial.json", 14316},
    {"Qwen--Qwen3-235B-A22B.json", 235094},
    {"Qwen--Qwen3-30B-A3B.json", 30532},
    {"Qwen--Qwen3-Coder-480B-A35B-Instruct.json", 480155},
    {"mistralai--Mixtral-8x22B-v0.1.json", 140621},
    {"mistralai--Mixtral-8x7B-v0.1.json", 46703},
    {"codellama--CodeLlama-34b-Instruct-hf.json", 33744},
    {"meta-llama--Llama-2-70b-hf.json", 68977},
    {"meta-llama--Llama-2-7b-hf.json", 6738},
    {"meta-llama--Llama-3.2-1B-Instruct.json", 1236},
    {"meta-llama--Meta-Llama-3-70B.json", 70554},
    {"meta-llama--Meta-Llama-3-8B.json", 8030},
    {"meta-llama--Meta-Llama-3.1-405B.json", 405853},
    {"meta-llama--Meta-Llama-3.1-70B.json", 70554},
    {"meta-llama--Meta-Llama-3.1-8B.json", 8030},
    {"mistralai--Mistral-7B-Instruct-v0.3.json", 7248},
    {"mistralai--Mistral-Nemo-Instruct-2407.json", 12248},
    {"nvidia--Llama-3.1-70B-Instruct-FP8.json", 70554},
};

static int published_millions(const char *file)
{
    for (size_t i = 0; i < COUNT(published); i++)
        if (!strcmp(published[i].file, file))
            return published[i].millions;
    return 0;
}

static void expect_config(const char *path, const char *file, int *loaded, int *others)
{
    struct model m;
    struct generation g;
    struct notes notes;
    struct plan p;
    struct err e = {""};
    struct plan_ask ask = {.weight = NUM_BF16, .kv = NUM_BF16, .numerics = "bf16-dot"};
    int want = published_millions(file), rc = model_load(path, &m, &g, &notes, &e);
    if (!want) {
        assert_int_not_equal(rc, 0);
        assert_non_null(strstr(e.text, "LlamaForCausalLM") ? e.text : strstr(e.text, "quantised"));
        ++*others;
        return;
    }
    if (rc || plan_make(&p, &m, &ask, &e))
        fail_msg("%s: %s", file, e.text);
    assert_int_equal((plan_parameters(&p) + 500000) / 1000000, want);
    ++*loaded;
}

static void published_configs_have_their_published_sizes(void **state)
{
    char folder[512], path[1024];
    const char *shared = getenv("TANDEM_SHARED");
    int loaded = 0, others = 0;
    (void)state;
    snprintf(folder, sizeof(folder), "%s/data/configs", shared ? shared : "../shared");
    DIR *d = opendir(folder);
    if (!d) {
        print_message("skipped: no shared test data at %s\n", folder);
        skip();
    }
    for (struct dirent *at; (at = readdir(d));) {
        snprintf(path, sizeof(path), "%s/%s", folder, at->d_name);
        if (strstr(at->d_name, ".json"))
            expect_config(path, at->d_name, &loaded, &others);
    }
    closedir(d);
    assert_int_equal(loaded, COUNT(published));
    assert_true(others > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absurd_fields_are_refused_by_name),
        cmocka_unit_test(weights_of_e4m3_are_read_and_what_is_done_otherwise_is_noted),
        cmocka_unit_test(mixtures_that_contradict_themselves_are_refused),
        cmocka_unit_test(the_number_of_experts_has_two_names),
        cmocka_unit_test(windows_follow_the_rule_of_the_family),
        cmocka_unit_test(layers_without_experts_are_found),
        cmocka_unit_test(missing_sizes_are_named),
        cmocka_unit_test(rope_scalings_are_read),
        cmocka_unit_test(unknown_fields_are_noted_and_ignored),
        cmocka_unit_test(published_configs_have_their_published_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
