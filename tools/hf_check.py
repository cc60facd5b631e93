"""hf_check.py - Tandem's logits against Hugging Face transformers, on random models.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python tools/hf_check.py [--tandem build/tandem] [CASE]...

One small random model per architecture and rope scaling, weights large enough that every term
counts, in float32. For each: the logits of 96 tokens, by one rank and by a split, and a greedy
continuation of 32 tokens. The bar is 1e-3 of absolute difference; the reference's own noise, its
distance from itself in float64, is printed beside. Exit code 1 when a case misses the bar.
"""
import argparse, json, os, shutil, subprocess, sys, tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

BAR, TOKENS, MORE = 1e-3, 96, 32
SHAPE = dict(hidden_size=96, intermediate_size=200, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, vocab_size=640, max_position_embeddings=256, rms_norm_eps=1e-5,
             rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, bos_token_id=1,
             eos_token_id=None, torch_dtype="float32")
LLAMA = ("LlamaForCausalLM", "llama")
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=64)
MOE = dict(num_experts=8, num_experts_per_tok=3, moe_intermediate_size=56, norm_topk_prob=False,
           decoder_sparse_step=1, mlp_only_layers=[], use_sliding_window=False)
CASES = {
    "llama": (LLAMA, {}),
    "llama-mha-tied": (LLAMA, dict(num_key_value_heads=6, tie_word_embeddings=True)),
    "llama-head-dim": (LLAMA, dict(head_dim=24)),
    "llama-biases": (LLAMA, dict(attention_bias=True, mlp_bias=True)),
    "llama-rope-linear": (LLAMA, dict(rope_scaling=dict(rope_type="linear", factor=3.0))),
    # Beyond the trained length the base follows each token's own position here, so that chunks
    # change nothing; transformers takes the longest of the batch. Within it both are the same.
    "llama-rope-dynamic": (LLAMA, dict(rope_scaling=dict(rope_type="dynamic", factor=2.0))),
    "llama-rope-llama3": (LLAMA, dict(rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=64))),
    "llama-rope-yarn": (LLAMA, dict(rope_scaling=YARN)),
    "qwen3-rope-yarn-set": (("Qwen3ForCausalLM", "qwen3"), dict(head_dim=32, rope_scaling=dict(
        YARN, beta_fast=16.0, beta_slow=2.0, attention_factor=1.25))),
    "mistral": (("MistralForCausalLM", "mistral"), dict(sliding_window=None)),
    "mistral-window": (("MistralForCausalLM", "mistral"), dict(sliding_window=20, head_dim=16)),
    "qwen2": (("Qwen2ForCausalLM", "qwen2"), dict(use_sliding_window=False)),
    "qwen2-window": (("Qwen2ForCausalLM", "qwen2"),
                     dict(use_sliding_window=True, sliding_window=24, max_window_layers=1)),
    "qwen3": (("Qwen3ForCausalLM", "qwen3"), dict(head_dim=32)),
    "qwen3-tied": (("Qwen3ForCausalLM", "qwen3"), dict(head_dim=16, tie_word_embeddings=True)),
    "mixtral": (("MixtralForCausalLM", "mixtral"),
                dict(num_local_experts=5, num_experts_per_tok=2, sliding_window=None)),
    "qwen2-moe": (("Qwen2MoeForCausalLM", "qwen2_moe"),
                  dict(MOE, shared_expert_intermediate_size=120, num_experts=6, qkv_bias=True)),
    "qwen2-moe-dense-layer": (("Qwen2MoeForCausalLM", "qwen2_moe"), dict(
        MOE, shared_expert_intermediate_size=40, mlp_only_layers=[1], norm_topk_prob=True)),
    "qwen2-moe-window": (("Qwen2MoeForCausalLM", "qwen2_moe"), dict(
        MOE, shared_expert_intermediate_size=40, use_sliding_window=True, sliding_window=20, max_window_layers=2)),
    "qwen3-moe-window": (("Qwen3MoeForCausalLM", "qwen3_moe"), dict(
        MOE, head_dim=32, use_sliding_window=True, sliding_window=20, max_window_layers=2)),
    "qwen3-moe": (("Qwen3MoeForCausalLM", "qwen3_moe"), dict(MOE, head_dim=32, norm_topk_prob=True)),
    "qwen3-moe-every-second": (("Qwen3MoeForCausalLM", "qwen3_moe"),
                               dict(MOE, head_dim=32, decoder_sparse_step=2)),
    "olmoe": (("OlmoeForCausalLM", "olmoe"), dict(num_experts=8, num_experts_per_tok=3, norm_topk_prob=False)),
    "olmoe-clip": (("OlmoeForCausalLM", "olmoe"), dict(num_experts=5, num_experts_per_tok=2, norm_topk_prob=True,
                                                       clip_qkv=0.8, num_key_value_heads=6)),
}
SPLITS = [[], ["--tp", "3", "--pp", "3", "--chunk", "7"], ["--tp", "2", "--sp", "--chunk", "50"]]


def eager_experts(fields):
    """The grouped product of newer versions knows no float64, in which the noise is measured."""
    return dict(experts_implementation="eager") if "num_experts_per_tok" in fields else {}


def make(folder, arch, fields):
    """A random model in the folder; the model as transformers reads it from there."""
    os.makedirs(folder, exist_ok=True)
    config = SHAPE | dict(architectures=[arch[0]], model_type=arch[1]) | fields
    shutil.copy("models/demo/tokenizer.json", folder)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.randn_like(p) * (0.3 if p.dim() == 1 else 0.12))
            if "norm" in name:
                p.add_(1)
    model.save_pretrained(folder)
    with open(f"{folder}/config.json", "w") as f:  # as models of the past wrote it
        json.dump(config, f)
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32,
                                                **eager_experts(fields)).eval()


def tandem(a, folder, ids, *options):
    dtype = [] if "--dtype" in options else ["--dtype", "f32"]
    return subprocess.run([a.tandem, "run", folder, "--raw", *dtype, "--ctx", "256",
                           "--ids", " ".join(map(str, ids)), *options], check=True, capture_output=True).stdout


@torch.no_grad()
def compare(a, name, model, root, options=()):
    """Prints how the model in root/name differs from that one; whether it is within the bar."""
    folder = f"{root}/{name}"
    ids = torch.randint(2, 640, (TOKENS,), generator=torch.Generator().manual_seed(1))
    want = model(ids[None]).logits[0]
    more = ids.tolist()
    for _ in range(MORE):
        more.append(model(torch.tensor([more])).logits[0, -1].argmax().item())
    worst, same = 0, True
    for split in SPLITS:
        tandem(a, folder, ids.tolist(), *split, *options, "--logits", f"{root}/logits")
        got = torch.frombuffer(bytearray(open(f"{root}/logits", "rb").read()), dtype=torch.float32)
        worst = max(worst, (got.view(want.shape) - want).abs().max().item())
        said = json.loads(tandem(a, folder, ids.tolist(), *split, *options, "--temperature", "0", "--max-tokens",
                                 str(MORE), "--json"))
        same &= said["ids"] == more[TOKENS:]
    noise = (model.double()(ids[None]).logits[0] - want).abs().max().item()
    good = worst <= BAR and same
    print(f"{name:22} logits within {want.abs().max():5.1f}, difference {worst:.1e} (reference's noise {noise:.1e}), "
          f"greedy {'same' if same else 'DIFFERS'}{'' if good else '   MISSED'}", flush=True)
    return good


def main(about, cases, make_case, options=()):
    """make_case(folder, name): a model there, and what transformers computes it with."""
    p = argparse.ArgumentParser(description=about.splitlines()[0])
    p.add_argument("--tandem", default="build/tandem")
    p.add_argument("cases", nargs="*", metavar="CASE", help=" ".join(cases))
    a = p.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as root:
        good = [compare(a, name, make_case(f"{root}/{name}", name), root, options) for name in a.cases or cases]
    print(f"{sum(good)} of {len(good)} cases within {BAR:g}")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main(__doc__, CASES, lambda folder, name: make(folder, *CASES[name]))
