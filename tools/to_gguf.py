"""to_gguf.py - a folder as a GGUF file, to measure peers on the same numbers: Llama, Qwen2, Qwen3, and
the mixtures Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE.

    python3 -m venv venv && venv/bin/pip install gguf safetensors torch
    venv/bin/python tools/to_gguf.py FOLDER FILE.gguf bf16|f16|f32|q8_0|q4_0|q4_1

All matrices get the one type, but routers and gates of experts, which stay f32. Not a converter for daily use: rotary scaling is left out.
"""
import json, os, sys

import gguf, numpy
from safetensors import safe_open

PART = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
        "block_sparse_moe.gate": "ffn_gate_inp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
        "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
        "mlp.shared_expert.down_proj": "ffn_down_shexp"}
EXPERT = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps",
          "w1": "ffn_gate_exps", "w3": "ffn_up_exps", "w2": "ffn_down_exps"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}
ARCH = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
        "Qwen3ForCausalLM": "qwen3", "MixtralForCausalLM": "llama", "Qwen2MoeForCausalLM": "qwen2moe",
        "Qwen3MoeForCausalLM": "qwen3moe", "OlmoeForCausalLM": "olmoe"}


def read(folder, name):
    with open(f"{folder}/{name}") as f:
        return json.load(f)


def write_shape(w, c, heads, kv, dim):
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(dim)
    w.add_value_length(dim)
    w.add_rope_dimension_count(dim)
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_rope_freq_base(c["rope_theta"])
    experts = c.get("num_experts", c.get("num_local_experts"))
    if not experts:
        return
    w.add_expert_count(experts)
    w.add_expert_used_count(c["num_experts_per_tok"])
    if "norm_topk_prob" in c:
        w.add_expert_weights_norm(c["norm_topk_prob"])
    if "moe_intermediate_size" in c:
        w.add_expert_feed_forward_length(c["moe_intermediate_size"])
    if "shared_expert_intermediate_size" in c:
        w.add_expert_shared_feed_forward_length(c["shared_expert_intermediate_size"])
    if c.get("clip_qkv"):
        w.add_clamp_kqv(c["clip_qkv"])


def write_tokenizer(w, c, folder):
    t = read(folder, "tokenizer.json")
    tokens, kinds = [f"<unused{i}>" for i in range(c["vocab_size"])], [1] * c["vocab_size"]
    for text, i in t["model"]["vocab"].items():
        tokens[i] = text
    for a in t["added_tokens"]:
        tokens[a["id"]], kinds[a["id"]] = a["content"], 3 if a["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types(kinds)
    w.add_token_merges(merges or ["a b"])
    eos = read(folder, "generation_config.json").get("eos_token_id", 0) if os.path.exists(
        f"{folder}/generation_config.json") else 0
    w.add_eos_token_id(eos if isinstance(eos, int) else eos[0])
    w.add_add_bos_token(False)
    template = read(folder, "tokenizer_config.json").get("chat_template")
    if template:
        w.add_chat_template(template)


def gguf_name(name):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    base, kind = rest.rsplit(".", 1)
    if ".experts." in base:
        return f"blk.{layer}.{EXPERT[base.rsplit('.', 1)[1]]}.{kind}"
    return f"blk.{layer}.{PART[base]}.{kind}"


def expert_of(name):
    """The number of the expert; None for other tensors."""
    return int(name.split(".experts.")[1].split(".")[0]) if ".experts." in name else None


def main():
    folder, out, kind = sys.argv[1:4]
    c = read(folder, "config.json")
    arch, to = ARCH[c["architectures"][0]], gguf.GGMLQuantizationType[kind.upper()]
    heads = c["num_attention_heads"]
    kv, dim = c.get("num_key_value_heads", heads), c.get("head_dim") or c["hidden_size"] // heads
    w = gguf.GGUFWriter(out, arch)
    write_shape(w, c, heads, kv, dim)
    write_tokenizer(w, c, folder)
    experts = {}  # by name there: by number
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        with safe_open(f"{folder}/{file}", "pt") as f:
            for name in f.keys():
                t = f.get_tensor(name).float().numpy()
                if arch == "llama" and (".q_proj." in name or ".k_proj." in name):  # rows in pairs
                    n = heads if ".q_proj." in name else kv
                    t = t.reshape(n, 2, dim // 2, -1).swapaxes(1, 2).reshape(t.shape)
                if expert_of(name) is not None:
                    experts.setdefault(gguf_name(name), {})[expert_of(name)] = t
                elif t.ndim == 1 or t.shape[0] == 1 or "_inp." in gguf_name(name):
                    w.add_tensor(gguf_name(name), t.squeeze().astype(numpy.float32))
                else:
                    w.add_tensor(gguf_name(name), gguf.quants.quantize(t, to), raw_dtype=to)
    for name, of in experts.items():
        t = numpy.stack([of[e] for e in range(len(of))])
        w.add_tensor(name, gguf.quants.quantize(t, to), raw_dtype=to)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


main()
