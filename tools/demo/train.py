"""train.py - trains the demo model and writes models/demo/. See README.md beside it.

    python3 train.py --out ../../models/demo --minutes 12
"""
import argparse, json, math, os, random, time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers, Regex

import corpus

H, L, HEADS, KV, D, FF, CTX, VOCAB, THETA, EPS = 128, 4, 8, 4, 16, 384, 256, 640, 10000.0, 1e-5
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEMPLATE = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + "
            "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")


def make_tokenizer():
    r = random.Random(1)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(
        (" ".join(t) for t in (corpus.turn(r) for _ in range(20000))),
        trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tok


def chat(pairs):
    """Text pieces of a conversation, and whether the model is to learn to say each."""
    for question, answer in pairs:
        yield f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", False
        yield f"{answer}<|im_end|>", True
        yield "\n", False


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        lin = lambda a, b: torch.nn.Linear(a, b, bias=False)
        self.n1, self.n2 = torch.nn.Parameter(torch.ones(H)), torch.nn.Parameter(torch.ones(H))
        self.q, self.k, self.v, self.o = lin(H, HEADS * D), lin(H, KV * D), lin(H, KV * D), lin(HEADS * D, H)
        self.gate, self.up, self.down = lin(H, FF), lin(H, FF), lin(FF, H)


def norm(x, w):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


def rope(x, cos, sin):
    a, b = x[..., : D // 2], x[..., D // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Parameter(torch.randn(VOCAB, H) * 0.02)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(L))
        self.norm = torch.nn.Parameter(torch.ones(H))
        for n, p in self.named_parameters():
            if p.dim() == 2 and n != "embed":
                torch.nn.init.normal_(p, std=0.06 / (math.sqrt(2 * L) if n.endswith(("o.weight", "down.weight")) else 1))
        f = THETA ** (-torch.arange(0, D, 2) / D)
        angle = torch.arange(CTX * 2)[:, None] * f
        self.cos, self.sin = angle.cos(), angle.sin()

    def forward(self, ids):
        n = ids.shape[1]
        x, cos, sin = self.embed[ids], self.cos[:n], self.sin[:n]
        for b in self.blocks:
            h = norm(x, b.n1)
            split = lambda t, k: t.view(ids.shape[0], n, k, D).transpose(1, 2)
            q, k, v = rope(split(b.q(h), HEADS), cos, sin), rope(split(b.k(h), KV), cos, sin), split(b.v(h), KV)
            k, v = k.repeat_interleave(HEADS // KV, 1), v.repeat_interleave(HEADS // KV, 1)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + b.o(a.transpose(1, 2).reshape(ids.shape[0], n, HEADS * D))
            h = norm(x, b.n2)
            x = x + b.down(F.silu(b.gate(h)) * b.up(h))
        return norm(x, self.norm) @ self.embed.T


def batch(tok, r, size):
    """Rows of CTX tokens packed with conversations; -100 where nothing is to be learned."""
    ids, labels = [], []
    while len(ids) < size * (CTX + 1):
        pairs = [corpus.turn(r) for _ in range(r.choice([1, 1, 1, 2, 3]))]
        for text, learn in chat(pairs):
            t = tok.encode(text).ids
            ids += t
            labels += t if learn else [-100] * len(t)
        ids.append(0)
        labels.append(-100)
    cut = size * (CTX + 1)
    i, l = torch.tensor(ids[:cut]).view(size, -1), torch.tensor(labels[:cut]).view(size, -1)
    return i[:, :-1], l[:, 1:]


@torch.no_grad()
def answer(model, tok, question, most=200):
    """Greedy answer, its ids, and the smallest gap between the best two logits."""
    ids = tok.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").ids
    n, gap = len(ids), 1e9
    while len(ids) < n + most:
        top = model(torch.tensor([ids]))[0, -1].topk(2)
        gap = min(gap, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
        if ids[-1] == 2:
            break
    return ids[:n], ids[n:], gap


def evaluate(model, tok, n):
    r, right = random.Random(99), 0
    for _ in range(n):
        q, a = corpus.sum_question(r, test=True)
        right += tok.decode(answer(model, tok, q, 16)[1]) == a
    facts = sorted({corpus.fact(r) for _ in range(600)})
    known = sum(tok.decode(answer(model, tok, q, 40)[1]) == a for q, a in facts)
    return right / n, known / len(facts)


def export(model, tok, out):
    os.makedirs(out, exist_ok=True)
    t = {"model.embed_tokens.weight": model.embed, "model.norm.weight": model.norm}
    for i, b in enumerate(model.blocks):
        p = f"model.layers.{i}."
        t |= {p + "input_layernorm.weight": b.n1, p + "post_attention_layernorm.weight": b.n2}
        t |= {f"{p}self_attn.{x}_proj.weight": getattr(b, x).weight for x in "qkvo"}
        t |= {f"{p}mlp.{x}_proj.weight": getattr(b, x).weight for x in ("gate", "up", "down")}
    save_file({k: v.detach().to(torch.bfloat16).contiguous() for k, v in t.items()}, f"{out}/model.safetensors",
              {"format": "pt"})
    tok.save(f"{out}/tokenizer.json")
    write = lambda name, o: open(f"{out}/{name}", "w").write(json.dumps(o, indent=2, ensure_ascii=False) + "\n")
    write("config.json", dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu",
          hidden_size=H, intermediate_size=FF, num_hidden_layers=L, num_attention_heads=HEADS,
          num_key_value_heads=KV, head_dim=D, max_position_embeddings=CTX * 2, rms_norm_eps=EPS, rope_theta=THETA,
          tie_word_embeddings=True, vocab_size=VOCAB, torch_dtype="bfloat16", bos_token_id=0, eos_token_id=2))
    write("generation_config.json", dict(do_sample=False, eos_token_id=[2, 0]))
    write("tokenizer_config.json", dict(bos_token=None, eos_token="<|im_end|>", chat_template=TEMPLATE))


def rounded(model):
    """The weights as stored, computed with in float32."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).float())
    return model


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--out", default="models/demo")
    a.add_argument("--minutes", type=float, default=12)
    a.add_argument("--batch", type=int, default=8)
    a.add_argument("--threads", type=int, default=2)
    a = a.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    torch.set_flush_denormal(True)
    tok, model, r = make_tokenizer(), Model(), random.Random(0)
    assert tok.get_vocab_size() == VOCAB, tok.get_vocab_size()
    opt = torch.optim.AdamW(model.parameters(), 3e-3, betas=(0.9, 0.98), weight_decay=0.01)
    begin, step = time.time(), 0
    while (done := (time.time() - begin) / 60 / a.minutes) < 1:
        lr = 3e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for g in opt.param_groups:
            g["lr"] = lr
        ids, labels = batch(tok, r, a.batch)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids).float()
        loss = F.cross_entropy(logits.view(-1, VOCAB), labels.reshape(-1), ignore_index=-100)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        opt.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} {done:.0%} loss {loss.item():.4f}", flush=True)
        if step % 2000 == 0:
            print("sums %.3f facts %.3f" % evaluate(model, tok, 20), flush=True)
            export(model, tok, a.out)
    rounded(model)
    export(model, tok, a.out)
    sums, facts = evaluate(model, tok, 200)
    print(f"{step} steps; held-out sums {sums:.3f}, facts {facts:.3f}", flush=True)
    cases = []
    for q in ["What is 17 + 25?", "What is 81 - 36?", "What is the capital of France?", "Which day comes after Sunday?",
              "Who are you?", "Tell me a story about a fox."]:
        prompt, ids, gap = answer(model, tok, q)
        cases.append(dict(question=q, prompt_ids=prompt, ids=ids, text=tok.decode(ids), smallest_gap=round(gap, 4)))
        print(q, "->", cases[-1]["text"], flush=True)
    json.dump(dict(note="greedy, bf16 weights in float32 arithmetic", held_out_sums=sums, facts=facts, steps=step,
                   cases=cases), open(f"{a.out}/expect.json", "w"), indent=1)


if __name__ == "__main__":
    main()
