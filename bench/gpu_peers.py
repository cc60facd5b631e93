"""gpu_peers.py - a decode step of Hugging Face transformers on a GPU, at its best: bf16, a static
cache, compiled with CUDA graphs. Prints one JSON object; needs torch and transformers, fetches
nothing.

    python3 bench/gpu_peers.py MODEL-FOLDER
"""
import json, sys, time

try:
    import torch, transformers
except ImportError as e:
    sys.exit(f"transformers cannot be measured: {e}")

if not torch.cuda.is_available():
    sys.exit("transformers cannot be measured: torch sees no GPU")

CONTEXT, STEPS = 512, 30
torch.set_grad_enabled(False)
config = transformers.AutoConfig.from_pretrained(sys.argv[1])
with torch.device("cuda"):
    model = transformers.AutoModelForCausalLM.from_config(config, torch_dtype=torch.bfloat16).eval()
cache = transformers.StaticCache(config=config, max_batch_size=1, max_cache_len=1024,
                                 device="cuda", dtype=torch.bfloat16)
prompt = torch.arange(CONTEXT, device="cuda")[None] % 1000
model(prompt, past_key_values=cache, cache_position=torch.arange(CONTEXT, device="cuda"))
step = torch.compile(model.forward, mode="reduce-overhead", fullgraph=True)
token = torch.tensor([[7]], device="cuda")
took = []
for i in range(STEPS):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    step(token, past_key_values=cache, cache_position=torch.tensor([CONTEXT + i], device="cuda"))
    torch.cuda.synchronize()
    took.append(time.perf_counter() - begin)
took = sorted(took[STEPS // 2:])
print(json.dumps({"decode_ms": 1e3 * took[len(took) // 2], "torch": torch.__version__,
                  "transformers": transformers.__version__}))
