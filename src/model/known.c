/* known.c - shapes of known models, as config.json texts. The numbers are those of the published
 * configurations; deepseek-v3-sizes is a stand-in to plan with: its layers, experts and widths, but
 * plain attention of 128 heads over 2 of keys and values. */
#include "base/json.h"
#include "model/folder.h"

#define ROPE3_8                                                                                    \
    ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"          \
    "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}"
#define ROPE3                                                                                      \
    ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"         \
    "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}"
#define SHAPE(arch, h, l, a, k, d, f, v, ctx, eps, theta, tied, more)                              \
    "{\"architectures\":[\"" arch "ForCausalLM\"],\"hidden_size\":" #h                             \
    ",\"num_hidden_layers\":" #l ",\"num_attention_heads\":" #a ",\"num_key_value_heads\":" #k     \
    ",\"head_dim\":" #d ",\"intermediate_size\":" #f ",\"vocab_size\":" #v                         \
    ",\"max_position_embeddings\":" #ctx ",\"rms_norm_eps\":" #eps ",\"rope_theta\":" #theta       \
    ",\"tie_word_embeddings\":" #tied ",\"hidden_act\":\"silu\"" more "}"
#define MIXTRAL ",\"num_local_experts\":8,\"num_experts_per_tok\":2"
#define EXPERTS(n, top, ff, norm)                                                                  \
    ",\"num_experts\":" #n ",\"num_experts_per_tok\":" #top ",\"moe_intermediate_size\":" #ff      \
    ",\"norm_topk_prob\":" #norm

static const struct {
    const char *name, *config;
} shapes[] = {
    {"llama-2-7b",
     SHAPE("Llama", 4096, 32, 32, 32, 128, 11008, 32000, 4096, 1e-5, 10000.0, false, "")},
    {"llama-2-13b",
     SHAPE("Llama", 5120, 40, 40, 40, 128, 13824, 32000, 4096, 1e-5, 10000.0, false, "")},
    {"llama-2-70b",
     SHAPE("Llama", 8192, 80, 64, 8, 128, 28672, 32000, 4096, 1e-5, 10000.0, false, "")},
    {"llama-3-8b",
     SHAPE("Llama", 4096, 32, 32, 8, 128, 14336, 128256, 8192, 1e-5, 500000.0, false, "")},
    {"llama-3-70b",
     SHAPE("Llama", 8192, 80, 64, 8, 128, 28672, 128256, 8192, 1e-5, 500000.0, false, "")},
    {"llama-3.1-8b",
     SHAPE("Llama", 4096, 32, 32, 8, 128, 14336, 128256, 131072, 1e-5, 500000.0, false, ROPE3_8)},
    {"llama-3.1-70b",
     SHAPE("Llama", 8192, 80, 64, 8, 128, 28672, 128256, 131072, 1e-5, 500000.0, false, ROPE3_8)},
    {"llama-3.1-405b", SHAPE("Llama", 16384, 126, 128, 8, 128, 53248, 128256, 131072, 1e-5,
                             500000.0, false, ROPE3_8)},
    {"llama-3.2-1b",
     SHAPE("Llama", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 1e-5, 500000.0, true, ROPE3)},
    {"llama-3.2-3b",
     SHAPE("Llama", 3072, 28, 24, 8, 128, 8192, 128256, 131072, 1e-5, 500000.0, true, ROPE3)},
    {"llama-3.3-70b",
     SHAPE("Llama", 8192, 80, 64, 8, 128, 28672, 128256, 131072, 1e-5, 500000.0, false, ROPE3_8)},
    {"codellama-34b",
     SHAPE("Llama", 8192, 48, 64, 8, 128, 22016, 32000, 16384, 1e-5, 1000000.0, false, "")},
    {"yi-34b",
     SHAPE("Llama", 7168, 60, 56, 8, 128, 20480, 64000, 4096, 1e-5, 5000000.0, false, "")},
    {"qwen2.5-0.5b",
     SHAPE("Qwen2", 896, 24, 14, 2, 64, 4864, 151936, 32768, 1e-6, 1000000.0, true, "")},
    {"qwen2.5-1.5b",
     SHAPE("Qwen2", 1536, 28, 12, 2, 128, 8960, 151936, 32768, 1e-6, 1000000.0, true, "")},
    {"qwen2.5-3b",
     SHAPE("Qwen2", 2048, 36, 16, 2, 128, 11008, 151936, 32768, 1e-6, 1000000.0, true, "")},
    {"qwen2.5-7b",
     SHAPE("Qwen2", 3584, 28, 28, 4, 128, 18944, 152064, 131072, 1e-6, 1000000.0, false, "")},
    {"qwen2.5-14b",
     SHAPE("Qwen2", 5120, 48, 40, 8, 128, 13824, 152064, 131072, 1e-6, 1000000.0, false, "")},
    {"qwen2.5-32b",
     SHAPE("Qwen2", 5120, 64, 40, 8, 128, 27648, 152064, 131072, 1e-6, 1000000.0, false, "")},
    {"qwen2.5-72b",
     SHAPE("Qwen2", 8192, 80, 64, 8, 128, 29568, 152064, 131072, 1e-6, 1000000.0, false, "")},
    {"qwen3-0.6b",
     SHAPE("Qwen3", 1024, 28, 16, 8, 128, 3072, 151936, 40960, 1e-6, 1000000.0, true, "")},
    {"qwen3-1.7b",
     SHAPE("Qwen3", 2048, 28, 16, 8, 128, 6144, 151936, 40960, 1e-6, 1000000.0, true, "")},
    {"qwen3-4b",
     SHAPE("Qwen3", 2560, 36, 32, 8, 128, 9728, 151936, 40960, 1e-6, 1000000.0, true, "")},
    {"qwen3-8b",
     SHAPE("Qwen3", 4096, 36, 32, 8, 128, 12288, 151936, 40960, 1e-6, 1000000.0, false, "")},
    {"qwen3-14b",
     SHAPE("Qwen3", 5120, 40, 40, 8, 128, 17408, 151936, 40960, 1e-6, 1000000.0, false, "")},
    {"qwen3-32b",
     SHAPE("Qwen3", 5120, 64, 64, 8, 128, 25600, 151936, 40960, 1e-6, 1000000.0, false, "")},
    {"mistral-7b-v0.1", SHAPE("Mistral", 4096, 32, 32, 8, 128, 14336, 32000, 32768, 1e-5, 10000.0,
                              false, ",\"sliding_window\":4096")},
    {"mistral-7b-v0.3",
     SHAPE("Mistral", 4096, 32, 32, 8, 128, 14336, 32768, 32768, 1e-5, 1000000.0, false, "")},
    {"mistral-nemo-12b",
     SHAPE("Mistral", 5120, 40, 32, 8, 128, 14336, 131072, 131072, 1e-5, 1000000.0, false, "")},
    {"mixtral-8x7b",
     SHAPE("Mixtral", 4096, 32, 32, 8, 128, 14336, 32000, 32768, 1e-5, 1000000.0, false, MIXTRAL)},
    {"mixtral-8x22b",
     SHAPE("Mixtral", 6144, 56, 48, 8, 128, 16384, 32000, 65536, 1e-5, 1000000.0, false, MIXTRAL)},
    {"qwen1.5-moe-a2.7b",
     SHAPE("Qwen2Moe", 2048, 24, 16, 16, 128, 5632, 151936, 32768, 1e-6, 1000000.0, false,
           EXPERTS(60, 4, 1408, false) ",\"shared_expert_intermediate_size\":5632")},
    {"qwen3-30b-a3b", SHAPE("Qwen3Moe", 2048, 48, 32, 4, 128, 6144, 151936, 40960, 1e-6, 1000000.0,
                            false, EXPERTS(128, 8, 768, true))},
    {"qwen3-235b-a22b", SHAPE("Qwen3Moe", 4096, 94, 64, 4, 128, 12288, 151936, 40960, 1e-6,
                              1000000.0, false, EXPERTS(128, 8, 1536, true))},
    {"olmoe-1b-7b",
     SHAPE("Olmoe", 2048, 16, 16, 16, 128, 1024, 50304, 4096, 1e-5, 10000.0, false,
           ",\"num_experts\":64,\"num_experts_per_tok\":8,\"norm_topk_prob\":false")},
    {"deepseek-v3-sizes",
     SHAPE("Qwen2Moe", 7168, 61, 128, 2, 128, 18432, 129280, 163840, 1e-6, 10000.0, false,
           EXPERTS(256, 8, 2048, true) ",\"shared_expert_intermediate_size\":2048,"
                                       "\"mlp_only_layers\":[0,1,2]")},
    {"tiny-moe", SHAPE("Qwen2Moe", 96, 4, 6, 2, 24, 172, 512, 512, 1e-5, 10000.0, true,
                       EXPERTS(6, 2, 68, false) ",\"shared_expert_intermediate_size\":100")},
    {"tiny", SHAPE("Llama", 96, 4, 6, 2, 24, 172, 512, 512, 1e-5, 10000.0, true, "")},
};

const char *model_known(int i) { return i >= 0 && i < (int)COUNT(shapes) ? shapes[i].name : NULL; }

void model_known_names(char *to, size_t n)
{
    size_t used = 0;
    *to = 0;
    for (size_t i = 0; i < COUNT(shapes); i++) {
        size_t more = strlen(shapes[i].name) + (i ? 2 : 0);
        if (used + more < n)
            used += (size_t)snprintf(to + used, n - used, "%s%s", i ? ", " : "", shapes[i].name);
    }
}

const char *model_config(const char *name)
{
    for (size_t i = 0; i < COUNT(shapes); i++)
        if (!strcmp(shapes[i].name, name))
            return shapes[i].config;
    return NULL;
}

/* Mixtures of experts that people ask for and that cannot run yet. */
static const char *const mixtures[] = {
    "deepseek-v2-lite", "deepseek-v3",   "deepseek-r1",      "kimi-k2", "gpt-oss-20b",
    "gpt-oss-120b",     "llama-4-scout", "llama-4-maverick", "glm-4.5",
};

bool model_is_mixture(const char *name)
{
    for (size_t i = 0; i < COUNT(mixtures); i++)
        if (!strcmp(mixtures[i], name))
            return true;
    return false;
}
