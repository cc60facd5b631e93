"""hf_check_fp8.py - Tandem's logits for folders of fp8 weights against transformers, on random models.

    venv/bin/python tools/hf_check_fp8.py [--tandem build/tandem] [CASE]...

Writes small random models as programs that quantise to fp8 do: e4m3 with scales for blocks of 128 x
128, for rows, or for a matrix, with the quantization_config of each. The reference is transformers on
the same numbers times their scales, in float32; x is rounded to fp8 by neither. The bar is that of
hf_check.py. Exit code 1 when a case misses it.
"""
import json, os

import torch
from safetensors.torch import save_file

import hf_check

SHAPE = dict(hidden_size=200, intermediate_size=600, num_attention_heads=4, num_key_value_heads=2, head_dim=128)
COMPRESSED = dict(quant_method="compressed-tensors", format="float-quantized", ignore=["lm_head"],
                  kv_cache_scheme=None, config_groups=dict(group_0=dict(
                      targets=["Linear"], weights=dict(num_bits=8, type="float", strategy="channel"),
                      input_activations=dict(num_bits=8, type="float", dynamic=True))))
BLOCKS = dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[128, 128],
              modules_to_not_convert=["lm_head"])
TENSOR = dict(quant_method="fp8", activation_scheme="static")
ROWS = dict(quant_method="fbgemm_fp8", activation_scale_ub=1200.0, modules_to_not_convert=["lm_head"])
QWEN = ("Qwen3ForCausalLM", "qwen3")
MIXTURE = (("Qwen3MoeForCausalLM", "qwen3_moe"), hf_check.MOE | SHAPE | dict(moe_intermediate_size=520))
CASES = {  # model, quantization_config, rows and columns of a scale (0: all), name of scales, their type
    "blocks": ((QWEN, SHAPE), BLOCKS, 128, 128, "_scale_inv", torch.float32),
    "blocks-bf16-scales": ((hf_check.LLAMA, SHAPE), BLOCKS, 128, 128, "_scale_inv", torch.bfloat16),
    "rows": ((hf_check.LLAMA, SHAPE), COMPRESSED, 1, 0, "_scale", torch.float32),
    "rows-fbgemm": ((hf_check.LLAMA, SHAPE), ROWS, 1, 0, "_scale", torch.float32),
    "matrix": ((hf_check.LLAMA, SHAPE), TENSOR, 0, 0, "_scale", torch.float32),
    "blocks-mixture": (MIXTURE, BLOCKS, 128, 128, "_scale_inv", torch.float32),
}


def quantise(w, rows, cols, kind):
    """The numbers, the scales, and what they come to."""
    rows, cols = rows or w.shape[0], cols or w.shape[1]
    down, across = -(-w.shape[0] // rows), -(-w.shape[1] // cols)
    scale = torch.empty(down, across)
    for i in range(down):
        for j in range(across):
            scale[i, j] = w[i * rows:(i + 1) * rows, j * cols:(j + 1) * cols].abs().max() / 440
    scale = scale.to(kind)
    wide = scale.float().repeat_interleave(rows, 0).repeat_interleave(cols, 1)[:w.shape[0], :w.shape[1]]
    q = (w / wide).to(torch.float8_e4m3fn)
    return q, scale.reshape(()) if scale.numel() == 1 else scale, q.float() * wide


@torch.no_grad()
def make(folder, case):
    (arch, fields), config, rows, cols, suffix, kind = CASES[case]
    model = hf_check.make(folder, arch, fields)
    state, files = model.state_dict(), {}
    for name, w in state.items():
        if "_proj" not in name or not name.endswith(".weight"):
            if w.dim() == 2:
                w.copy_(w.bfloat16().float())
            files[name] = w.bfloat16() if w.dim() == 2 else w.clone()
        elif w.dim() == 2:
            files[name], files[name + suffix], wide = quantise(w, rows, cols, kind)
            w.copy_(wide)
            if config is TENSOR:
                files[name.replace(".weight", ".input_scale")] = torch.tensor(0.05)
    for name in [n for n in os.listdir(folder) if n.endswith(".safetensors")]:
        os.remove(f"{folder}/{name}")
    save_file({n: t.contiguous() for n, t in unfused(model, files, rows, cols, suffix, kind).items()},
              f"{folder}/model.safetensors")
    with open(f"{folder}/config.json") as f:
        whole = json.load(f)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(whole | dict(quantization_config=config), f)
    return model


def unfused(model, files, rows, cols, suffix, kind):
    """Newer transformers keep a layer's experts in two tensors; files have six for each."""
    for name, w in list(model.state_dict().items()):
        if w.dim() != 3:
            continue
        files.pop(name, None)
        for e in range(w.shape[0]):
            parts = dict(gate_proj=w[e, :w.shape[1] // 2], up_proj=w[e, w.shape[1] // 2:]) \
                if "gate_up" in name else dict(down_proj=w[e])
            for part, one in parts.items():
                at = f"{name.rsplit('.', 1)[0]}.{e}.{part}.weight"
                files[at], files[at + suffix], wide = quantise(one, rows, cols, kind)
                one.copy_(wide)
    return files


if __name__ == "__main__":
    hf_check.main(__doc__, CASES, make, ["--dtype", "auto", "--kv", "f32", "--isa", "avx2"])
