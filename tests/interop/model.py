"""The model that `make interop` works on: the demo's GGUF file as a Hugging Face directory in float16, with its channels permuted.
usage: model.py MODEL.gguf OUT_DIR    Llama architecture; needs torch, transformers, accelerate, gguf

The demo's weights come off a 4-bit grid, which a quantizer could find again. A permutation of the residual stream, of each MLP's inner width and of the
value channels of each head leaves the function as it is and mixes the old groups."""
import os, sys
import numpy as np, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

SEED = 20261124


def load(path):
    folder, name = os.path.split(os.path.abspath(path))
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, False
    if hasattr(model.config, "quantization_config"):  # a plain float model from here on
        del model.config.quantization_config
    return model, AutoTokenizer.from_pretrained(folder, gguf_file=name)


def permute(model):
    c, rng = model.config, np.random.default_rng(SEED)
    heads, kv = c.num_attention_heads, c.num_key_value_heads
    width = c.hidden_size // heads
    residual = torch.from_numpy(rng.permutation(c.hidden_size))
    inner = [torch.from_numpy(rng.permutation(c.intermediate_size)) for _ in model.model.layers]
    values = [[torch.from_numpy(rng.permutation(width)) for _ in range(kv)] for _ in model.model.layers]

    def order(weight, rows=None, cols=None):
        weight.data = (weight.data if rows is None else weight.data[rows]) if cols is None else (weight.data if rows is None else weight.data[rows])[:, cols]

    for layer, f, v in zip(model.model.layers, inner, values):
        a, m = layer.self_attn, layer.mlp
        order(a.q_proj.weight, cols=residual)
        order(a.k_proj.weight, cols=residual)
        order(a.v_proj.weight, torch.cat([h * width + v[h] for h in range(kv)]), residual)
        order(a.o_proj.weight, residual, torch.cat([h * width + v[h * kv // heads] for h in range(heads)]))
        order(m.gate_proj.weight, f, residual)
        order(m.up_proj.weight, f, residual)
        order(m.down_proj.weight, residual, f)
        order(layer.input_layernorm.weight, residual)
        order(layer.post_attention_layernorm.weight, residual)
    order(model.model.norm.weight, residual)
    order(model.model.embed_tokens.weight, cols=residual)
    if model.lm_head.weight.data_ptr() != model.model.embed_tokens.weight.data_ptr():
        order(model.lm_head.weight, cols=residual)


def main():
    model, tokenizer = load(sys.argv[1])
    permute(model)
    out = sys.argv[2]
    model.to(torch.float16).save_pretrained(out + ".part")
    tokenizer.save_pretrained(out + ".part")
    os.rename(out + ".part", out)


main()
