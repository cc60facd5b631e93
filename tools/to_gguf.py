"""to_gguf.py - a Llama, Qwen2 or Qwen3 folder as a GGUF file, to measure peers on the same numbers.

    python3 -m venv venv && venv/bin/pip install gguf safetensors torch
    venv/bin/python tools/to_gguf.py FOLDER FILE.gguf bf16|f16|f32|q8_0|q4_0|q4_1

All matrices get the one type. Not a converter for daily use: rotary scaling is left out.
"""
import json, os, sys

import gguf, numpy
from safetensors import safe_open

PART = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}
ARCH = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2",
        "Qwen3ForCausalLM": "qwen3"}


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
    return f"blk.{layer}.{PART[base]}.{kind}"


def main():
    folder, out, kind = sys.argv[1:4]
    c = read(folder, "config.json")
    arch, to = ARCH[c["architectures"][0]], gguf.GGMLQuantizationType[kind.upper()]
    heads = c["num_attention_heads"]
    kv, dim = c.get("num_key_value_heads", heads), c.get("head_dim") or c["hidden_size"] // heads
    w = gguf.GGUFWriter(out, arch)
    write_shape(w, c, heads, kv, dim)
    write_tokenizer(w, c, folder)
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".safetensors")):
        with safe_open(f"{folder}/{file}", "pt") as f:
            for name in f.keys():
                t = f.get_tensor(name).float().numpy()
                if arch == "llama" and (".q_proj." in name or ".k_proj." in name):  # rows in pairs
                    n = heads if ".q_proj." in name else kv
                    t = t.reshape(n, 2, dim // 2, -1).swapaxes(1, 2).reshape(t.shape)
                if t.ndim == 1:
                    w.add_tensor(gguf_name(name), t.astype(numpy.float32))
                else:
                    w.add_tensor(gguf_name(name), gguf.quants.quantize(t, to), raw_dtype=to)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


main()
