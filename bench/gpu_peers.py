"""gpu_peers.py - Hugging Face transformers on a GPU, at its best: bf16, a static cache, the step
compiled into CUDA graphs. Prints a line of JSON for every figure as soon as it is known; needs torch
and transformers, fetches nothing.

    python3 bench/gpu_peers.py MODEL-FOLDER [--batch 32] [--context 512] [--steps 30] [--device cuda]

decode_ms: a step of one sequence. batch_tok_s: tokens a second of --batch sequences at once, prompts
of 128 and answers of --answer tokens, prompts included.
"""
import argparse, inspect, json, sys, time

try:
    import torch, transformers
except ImportError as e:
    sys.exit(f"transformers cannot be measured: {e}")

p = argparse.ArgumentParser()
p.add_argument("folder")
p.add_argument("--device", default="cuda")
p.add_argument("--batch", type=int, default=32)
p.add_argument("--context", type=int, default=512)
p.add_argument("--prompt", type=int, default=128)
p.add_argument("--answer", type=int, default=128)
p.add_argument("--steps", type=int, default=30)
A = p.parse_args()
if A.device == "cuda" and not torch.cuda.is_available():
    sys.exit("transformers cannot be measured: torch sees no GPU")
torch.set_grad_enabled(False)


def tell(**figures):
    print(json.dumps(figures), flush=True)


def now():
    if A.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def load():
    config = transformers.AutoConfig.from_pretrained(A.folder)
    with torch.device(A.device):
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    return config, model


def cache_of(config, batch, length):
    """Older versions want more words than newer ones."""
    try:
        return transformers.StaticCache(config=config, max_cache_len=length)
    except TypeError:
        return transformers.StaticCache(config=config, max_batch_size=batch, max_cache_len=length, device=A.device,
                                        dtype=torch.bfloat16)


def tokens(batch, n):
    return (torch.arange(batch * n, device=A.device) % 500).reshape(batch, n) + 3


class Sequences:
    """A batch of sequences in a static cache, and steps of one token of each."""

    def __init__(self, config, model, step, batch, length):
        self.model, self.step_of, self.batch, self.at = model, step, batch, 0
        self.cache = cache_of(config, batch, length)

    def run(self, forward, ids):
        where = torch.arange(self.at, self.at + ids.shape[1], device=A.device)
        more = {"cache_position": where} if "cache_position" in model_words else {}
        out = forward(ids, past_key_values=self.cache, position_ids=where[None].expand(self.batch, -1),
                      logits_to_keep=1, **more)
        self.at += ids.shape[1]
        return out.logits[:, -1:].argmax(-1)

    def prompt(self, n):
        return self.run(self.model, tokens(self.batch, n)).clone()

    def step(self, ids):
        torch.compiler.cudagraph_mark_step_begin()
        return self.run(self.step_of, ids).clone()


def decode_ms(config, model, step):
    s = Sequences(config, model, step, 1, A.context + A.steps + 8)
    ids, took = s.prompt(A.context), []
    for _ in range(A.steps):
        begin = now()
        ids = s.step(ids)
        took.append(now() - begin)
    took = sorted(took[A.steps // 2:])
    return 1e3 * took[len(took) // 2]


def batch_tok_s(config, model, step):
    """The second time: the first compiles."""
    for _ in range(2):
        s = Sequences(config, model, step, A.batch, A.prompt + A.answer + 8)
        begin = now()
        ids = s.prompt(A.prompt)
        for _ in range(A.answer - 1):
            ids = s.step(ids)
        took = now() - begin
    return A.batch * A.answer / took


config, model = load()
model_words = inspect.signature(model.forward).parameters
tell(torch=torch.__version__, transformers=transformers.__version__)
tell(decode_eager_ms=decode_ms(config, model, model.forward))
compiled = torch.compile(model.forward, mode="reduce-overhead", dynamic=False)
tell(decode_ms=decode_ms(config, model, compiled))
tell(batch=A.batch, batch_tok_s=batch_tok_s(config, model, compiled))
