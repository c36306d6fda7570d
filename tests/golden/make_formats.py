"""Golden values of nf4, fp4, their double quantization, int8 and fp8, made by bitsandbytes 0.50.2 and torch 2.9.1 on a CPU: tests/golden/formats.json.
usage: make_formats.py > formats.json
The matrix is made by the formula below, in numbers that float16 holds; the test makes the same."""
import json
import torch, bitsandbytes.functional as F

ROWS, COLS = 24, 100


def weights():
    v = [((i * 2654435761 % 2**32) >> 20) - 2048 for i in range(ROWS * COLS)]
    return torch.tensor([x * (4 if i % 53 == 0 else 1) / 8192 * (0 if 640 <= i < 704 else 1) for i, x in enumerate(v)]).view(ROWS, COLS).half()


def text(t):
    return t.contiguous().view(-1).view(torch.uint8).numpy().tobytes().hex()


w, cases = weights(), []
for kind in ("nf4", "fp4"):
    for block, nested in ((64, False), (32, True), (64, True), (4096, False)):
        codes, s = F.quantize_4bit(w, blocksize=block, compress_statistics=nested, quant_type=kind)
        case = {"format": kind + ("-dq" if nested else "") + ("" if block == 64 else f"-{block}"), "codes": text(codes), "absmax": text(s.absmax)}
        if nested:
            case.update(nested=text(s.state2.absmax), offset=text(s.offset.view(1)))
        cases.append(case)
codes, scb, _ = F.int8_vectorwise_quant(w)
cases.append({"format": "int8", "codes": text(codes), "absmax": text(scb)})
maps = {"dynamic": text(F.create_dynamic_map()), "nf4": text(F.get_4bit_type("nf4", device="cpu")), "fp4": text(F.get_4bit_type("fp4", device="cpu"))}
every = torch.arange(256, dtype=torch.uint8)
ramp = torch.tensor([i * abs(i) / 2**14 for i in range(-3000, 3000, 7)])
for name, dtype, most in (("e4m3", torch.float8_e4m3fn, 448), ("e5m2", torch.float8_e5m2, 57344)):
    maps[name] = text(torch.nan_to_num(every.view(dtype).float(), nan=12345.0, posinf=12345.0, neginf=12345.0))
    maps[name + "_ramp"] = text(ramp.clamp(-most, most).to(dtype))
print(json.dumps({"about": "bitsandbytes 0.50.2, torch 2.9.1", "rows": ROWS, "cols": COLS, "cases": cases, "maps": maps,
                  "means": [{"n": n, "mean": float(torch.tensor([(i * 40503 % 65536) / 65536 for i in range(n)]).mean())} for n in (1, 7, 33, 777, 1728, 5184, 13824, 27648)]}, indent=1))
