/* known.c - shapes of known models, as config.json texts. The numbers are those of the published
 * configurations. */
#include "base/json.h"
#include "model/folder.h"

#define ROPE3                                                                                      \
    ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"         \
    "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}"
#define SHAPE(arch, h, l, a, k, d, f, v, ctx, eps, theta, tied, more)                              \
    "{\"architectures\":[\"" arch "ForCausalLM\"],\"hidden_size\":" #h                             \
    ",\"num_hidden_layers\":" #l ",\"num_attention_heads\":" #a ",\"num_key_value_heads\":" #k     \
    ",\"head_dim\":" #d ",\"intermediate_size\":" #f ",\"vocab_size\":" #v                         \
    ",\"max_position_embeddings\":" #ctx ",\"rms_norm_eps\":" #eps ",\"rope_theta\":" #theta       \
    ",\"tie_word_embeddings\":" #tied ",\"hidden_act\":\"silu\"" more "}"

static const struct {
    const char *name, *config;
} shapes[] = {
    {"llama-3.2-1b",
     SHAPE("Llama", 2048, 16, 32, 8, 64, 8192, 128256, 131072, 1e-5, 500000.0, true, ROPE3)},
    {"llama-3.2-3b",
     SHAPE("Llama", 3072, 28, 24, 8, 128, 8192, 128256, 131072, 1e-5, 500000.0, true, ROPE3)},
    {"llama-3-8b",
     SHAPE("Llama", 4096, 32, 32, 8, 128, 14336, 128256, 8192, 1e-5, 500000.0, false, "")},
    {"llama-3-70b",
     SHAPE("Llama", 8192, 80, 64, 8, 128, 28672, 128256, 8192, 1e-5, 500000.0, false, "")},
    {"qwen2.5-0.5b",
     SHAPE("Qwen2", 896, 24, 14, 2, 64, 4864, 151936, 32768, 1e-6, 1000000.0, true, "")},
    {"qwen2.5-7b",
     SHAPE("Qwen2", 3584, 28, 28, 4, 128, 18944, 152064, 131072, 1e-6, 1000000.0, false, "")},
    {"qwen3-0.6b",
     SHAPE("Qwen3", 1024, 28, 16, 8, 128, 3072, 151936, 40960, 1e-6, 1000000.0, true, "")},
    {"qwen3-8b",
     SHAPE("Qwen3", 4096, 36, 32, 8, 128, 12288, 151936, 40960, 1e-6, 1000000.0, false, "")},
    {"qwen3-32b",
     SHAPE("Qwen3", 5120, 64, 64, 8, 128, 25600, 151936, 40960, 1e-6, 1000000.0, false, "")},
    {"mistral-7b-v0.1", SHAPE("Mistral", 4096, 32, 32, 8, 128, 14336, 32000, 32768, 1e-5, 10000.0,
                              false, ",\"sliding_window\":4096")},
    {"mistral-7b-v0.3",
     SHAPE("Mistral", 4096, 32, 32, 8, 128, 14336, 32768, 32768, 1e-5, 1000000.0, false, "")},
    {"tiny", SHAPE("Llama", 96, 4, 6, 2, 24, 172, 512, 512, 1e-5, 10000.0, true, "")},
};

const char *model_known(int i) { return i >= 0 && i < (int)COUNT(shapes) ? shapes[i].name : NULL; }

const char *model_config(const char *name)
{
    for (size_t i = 0; i < COUNT(shapes); i++)
        if (!strcmp(shapes[i].name, name))
            return shapes[i].config;
    return NULL;
}
