#!/usr/bin/env python3
"""Writes gguf/NAME.gguf, tiny random models with experts as GGUF files lay them down (all of a layer in one tensor; Mixtral's q and k rows in pairs), and
gguf/NAME.json, their logits by transformers (float32, eager attention).

    python3 make_gguf.py        # transformers 5.23.0, torch 2.9.1, gguf 0.19
"""
import json, os
import numpy as np, torch, transformers, gguf
from transformers import MixtralConfig, Qwen2MoeConfig, Qwen3MoeConfig, AutoModelForCausalLM

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "gguf")
common = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, vocab_size=32,
              max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None, pad_token_id=None, tie_word_embeddings=True)
cases = {
    "mixtral": ("llama", MixtralConfig(**common, num_local_experts=3, num_experts_per_tok=2)),
    "qwen2moe": ("qwen2moe", Qwen2MoeConfig(**common, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=24)),
    "qwen3moe": ("qwen3moe", Qwen3MoeConfig(**common, head_dim=16, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True)),
}
names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate": "ffn_gate_inp",
         "mlp.shared_expert_gate": "ffn_gate_inp_shexp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
         "mlp.shared_expert.down_proj": "ffn_down_shexp"}


def pairs(w, heads):
    """Rows (head, half, i) to (head, i, half)."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def tensors(arch, config, state):
    for name, t in state.items():
        w = t.float().numpy()
        if name in ("model.embed_tokens.weight", "model.norm.weight"):
            yield {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name], w
        if not name.startswith("model.layers."):
            continue
        _, _, layer, rest = name.split(".", 3)
        blk = f"blk.{layer}."
        if rest == "mlp.experts.gate_up_proj":
            gate, up = np.split(w, 2, axis=1)
            yield blk + "ffn_gate_exps.weight", gate
            yield blk + "ffn_up_exps.weight", up
        elif rest == "mlp.experts.down_proj":
            yield blk + "ffn_down_exps.weight", w
        else:
            part, kind = rest.rsplit(".", 1)
            if arch == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
                w = pairs(w, config.num_attention_heads if part.endswith("q_proj") else config.num_key_value_heads)
            yield blk + names[part] + "." + kind, w[0] if part == "mlp.shared_expert_gate" else w


for name, (arch, config) in cases.items():
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_((torch.randn_like(p) * (0.3 if p.ndim > 1 else 0.2) + (1 if "norm" in n else 0)).bfloat16())
    ids = [(i * i * 7 + 3 * i) % 32 for i in range(40)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    os.makedirs(here, exist_ok=True)
    g = gguf.GGUFWriter(os.path.join(here, name + ".gguf"), arch)
    g.add_block_count(config.num_hidden_layers)
    g.add_context_length(128)
    g.add_embedding_length(32)
    g.add_feed_forward_length(32)
    g.add_head_count(4)
    g.add_head_count_kv(2)
    g.add_layer_norm_rms_eps(1e-5)
    g.add_rope_freq_base(config.rope_parameters["rope_theta"])
    g.add_expert_count(3)
    g.add_expert_used_count(2)
    if arch != "llama":
        g.add_expert_feed_forward_length(16)
    if arch == "qwen2moe":
        g.add_expert_shared_feed_forward_length(24)
    if arch == "qwen3moe":
        g.add_key_length(16)
        g.add_value_length(16)
    for n, w in tensors(arch, config, model.state_dict()):
        if w.ndim == 1 or "gate_inp" in n:
            g.add_tensor(n, w.astype(np.float32))
        else:
            g.add_tensor(n, gguf.quants.quantize(w, gguf.GGMLQuantizationType.BF16), raw_dtype=gguf.GGMLQuantizationType.BF16)
    g.write_header_to_file()
    g.write_kv_data_to_file()
    g.write_tensors_to_file()
    g.close()
    with open(os.path.join(here, name + ".json"), "w") as f:
        json.dump({"peer": "transformers " + transformers.__version__ + ", torch " + torch.__version__, "ids": ids,
                   "rows": [0, 12, 39], "logits": [[round(float(v), 6) for v in logits[r]] for r in (0, 12, 39)]}, f)
        f.write("\n")
