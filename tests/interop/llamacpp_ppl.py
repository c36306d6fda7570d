#!/usr/bin/env python3
"""Perplexity of a GGUF file by llama.cpp, in qppl's windows where the stride is the window: each is fed alone and scored but for its first token.

    llamacpp_ppl.py MODEL.gguf TEXT MAX_TOKENS [WINDOW]        # pip install llama-cpp-python (0.3.36)
    qppl --model MODEL.gguf --text TEXT --max-tokens N --window 2048 --stride 2048 --compute f32
"""
import ctypes, json, math, sys
import numpy as np
import llama_cpp as lc

path, text, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
window = int(sys.argv[4]) if len(sys.argv) > 4 else 2048
lc.llama_backend_init()
model = lc.llama_model_load_from_file(path.encode(), lc.llama_model_default_params())
p = lc.llama_context_default_params()
p.n_ctx, p.n_batch, p.n_ubatch, p.n_threads, p.n_threads_batch = window, window, 512, 2, 2
p.type_k = p.type_v = lc.GGML_TYPE_F32
ctx = lc.llama_init_from_model(model, p)
vocab = lc.llama_model_get_vocab(model)
raw = open(text, "rb").read()[:limit * 16]
ids = (lc.llama_token * (len(raw) + 8))()
n = min(lc.llama_tokenize(vocab, raw, len(raw), ids, len(raw) + 8, False, False), limit)
size = lc.llama_vocab_n_tokens(vocab)
nll, scored = 0.0, 0
for at in range(0, n, window):
    some = min(window, n - at)
    b = lc.llama_batch_init(some, 0, 1)
    b.n_tokens = some
    for i in range(some):
        b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = ids[at + i], i, 1, 0, 1
    lc.llama_memory_clear(lc.llama_get_memory(ctx), True)
    if lc.llama_decode(ctx, b):
        sys.exit("llama_decode failed")
    out = np.ctypeslib.as_array(ctypes.cast(lc.llama_get_logits(ctx), ctypes.POINTER(ctypes.c_float)), (some, size))
    for i in range(some - 1):
        row = out[i].astype(np.float64)
        row -= row.max()
        nll -= row[ids[at + i + 1]] - math.log(np.exp(row).sum())
        scored += 1
print(json.dumps({"model": path, "tokens": n, "scored": scored, "ppl": math.exp(nll / scored)}))
