"""Sliding-window perplexity of a checkpoint with transformers and its peers' own kernels: what qppl's is compared with (docs/INTEROP.md).
usage: ppl.py DIR N_TOKENS TEXT.jsonl|TEXT.txt [DTYPE [weights]]    window 2048, stride 512, rows joined by two newlines
The weights are taken as the checkpoint has them; "weights": and multiplied in DTYPE where the peer would round the activations too (bitsandbytes int8)"""
import json, math, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

path, n, text = sys.argv[1], int(sys.argv[2]), sys.argv[3]
dtype = getattr(torch, sys.argv[4] if len(sys.argv) > 4 else "float32")
torch.set_num_threads(2)
config = json.load(open(path + "/config.json")).get("quantization_config", {})
only_weights = sys.argv[5:] == ["weights"]
tok = AutoTokenizer.from_pretrained(path)
if config.get("quant_method") in ("gptq", "awq"):  # GPTQModel's kernels compute in 16 bits only
    dtype = torch.float16 if dtype == torch.float32 else dtype
    from gptqmodel import BACKEND, GPTQModel
    model = GPTQModel.load(path, device="cpu", backend=getattr(BACKEND, "GPTQ_TORCH" if config["quant_method"] == "gptq" else "AWQ_TORCH", BACKEND.AUTO), dtype=dtype).model.eval()
else:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()
    for m in model.modules():
        if hasattr(m, "compute_dtype"):  # the checkpoint's is for GPUs
            m.compute_dtype, m.compute_type_is_set = dtype, True
    if only_weights:
        model = model.dequantize().to(dtype)
words = "\n\n".join(json.loads(l)["text"] for l in open(text)) if text.endswith(".jsonl") else open(text).read()
ids = tok(words, return_tensors="pt").input_ids[:, :n]
total, window, stride, prev, nll, scored = ids.size(1), 2048, 512, 0, 0.0, 0
with torch.no_grad():
    for begin in range(0, total, stride):
        end = min(begin + window, total)
        x = ids[:, begin:end]
        logits = model(x).logits.float()[0, :-1]
        new = min(end - prev, x.size(1) - 1)
        loss = torch.nn.functional.cross_entropy(logits[-new:], x[0, -new:], reduction="none")
        nll, scored, prev = nll + loss.sum().item(), scored + new, end
        if end == total:
            break
print(json.dumps({"path": path, "tokens": total, "scored": scored, "ppl": math.exp(nll / scored)}))
