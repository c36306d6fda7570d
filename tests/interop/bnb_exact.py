"""Codes, scales, nested scales and offsets of a checkpoint by `qquant --method nf4|fp4|int8 -o DIR` against bitsandbytes, bit for bit, over the whole model.
usage: bnb_exact.py MODEL(float16, Hugging Face) DIR..."""
import json, sys
import numpy as np, torch, bitsandbytes
import bitsandbytes.functional as F
from safetensors import safe_open

torch.set_num_threads(1)


def different(a, b):
    a, b = a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8)
    return a.numel() if a.shape != b.shape else int((a != b).sum())


def compare(source, ours, module):
    w, found = source.get_tensor(module + ".weight"), {}
    if module + ".SCB" in ours.keys():
        codes, scb, _ = F.int8_vectorwise_quant(w.half())
        return {"codes": different(codes, ours.get_tensor(module + ".weight")), "SCB": different(scb, ours.get_tensor(module + ".SCB"))}
    key = next(k for k in ours.keys() if k.startswith(module + ".weight.quant_state"))
    state = json.loads(bytes(ours.get_tensor(key).tolist()))
    nested = "nested_offset" in state
    codes, s = F.quantize_4bit(w, blocksize=state["blocksize"], compress_statistics=nested, quant_type=state["quant_type"])
    found["codes"] = different(codes, ours.get_tensor(module + ".weight"))
    found["quant_map"] = different(s.code, ours.get_tensor(module + ".weight.quant_map"))
    found["absmax"] = different(s.absmax, ours.get_tensor(module + ".weight.absmax"))
    if nested:
        found["nested_absmax"] = different(s.state2.absmax, ours.get_tensor(module + ".weight.nested_absmax"))
        found["nested_map"] = different(s.state2.code, ours.get_tensor(module + ".weight.nested_quant_map"))
        found["offset"] = int(np.float32(state["nested_offset"]) != s.offset.numpy())
    return found


failed = False
source = safe_open(sys.argv[1] + "/model.safetensors", "pt")
for path in sys.argv[2:]:
    ours, total, layers = safe_open(path + "/model.safetensors", "pt"), {}, 0
    modules = sorted({k[: -len(".weight")] for k in ours.keys() if k.endswith("proj.weight")})
    for m in modules:
        for k, n in compare(source, ours, m).items():
            total[k] = total.get(k, 0) + n
    failed |= any(total.values())
    print(f"{path}: {len(modules)} layers, differing bytes: {total}; bitsandbytes {bitsandbytes.__version__}, torch {torch.__version__}", flush=True)
sys.exit(failed)
