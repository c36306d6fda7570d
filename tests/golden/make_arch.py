#!/usr/bin/env python3
"""Writes arch/NAME: tiny random models of each architecture and variation, and their logits by transformers (float32, eager attention).

    python3 make_arch.py [NAME...]        # transformers 5.23.0, torch 2.9.1
"""
import json, os, sys
import torch, transformers
from transformers import (LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, Gemma2Config, Gemma3TextConfig, Phi3Config, GPT2Config, GPTNeoXConfig, MixtralConfig,
                          Qwen2MoeConfig, Qwen3MoeConfig, Olmo2Config, StableLmConfig, PhiConfig, AutoModelForCausalLM)

here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "arch")
common = dict(hidden_size=32, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=32,
              max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None, pad_token_id=None)
llama3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64, rope_theta=10000.0)
neox = {k: v for k, v in common.items() if k not in ("num_key_value_heads", "rms_norm_eps")} | dict(num_attention_heads=2)
cases = {
    "llama": LlamaConfig(**common, tie_word_embeddings=False),
    "llama-rope3-bias": LlamaConfig(**{**common, "num_attention_heads": 2}, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_parameters=llama3),
    "llama-linear": LlamaConfig(**common, tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=5000.0)),
    "mistral-window": MistralConfig(**common, tie_word_embeddings=False, sliding_window=7),
    "qwen2": Qwen2Config(**common, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "qwen3": Qwen3Config(**common, tie_word_embeddings=True, head_dim=16),
    "gemma2": Gemma2Config(**common, head_dim=16, query_pre_attn_scalar=20, sliding_window=7, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma3": Gemma3TextConfig(**common, head_dim=16, query_pre_attn_scalar=20, sliding_window=7, layer_types=["sliding_attention", "full_attention"],
                               rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                                                    sliding_attention=dict(rope_type="default", rope_theta=1e4))),
    "olmo2": Olmo2Config(**common, tie_word_embeddings=False),
    "stablelm": StableLmConfig(**{k: v for k, v in common.items() if k != "rms_norm_eps"}, use_qkv_bias=True, tie_word_embeddings=False,
                               rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25)),
    "phi": PhiConfig(**{k: v for k, v in common.items() if k != "rms_norm_eps"}, tie_word_embeddings=False,
                     rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
    "phi3": Phi3Config(**common, tie_word_embeddings=False, sliding_window=9),
    "phi3-longrope": Phi3Config(**{**common, "num_attention_heads": 2}, tie_word_embeddings=True, original_max_position_embeddings=64,
                                rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75, original_max_position_embeddings=64,
                                                     short_factor=[1.0, 1.1, 1.25, 1.5, 2.0, 3.0], long_factor=[1.0, 2.0, 3.0, 4.0, 6.0, 9.0])),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=32, n_positions=64, bos_token_id=None, eos_token_id=None),
    "gpt-neox": GPTNeoXConfig(**neox, tie_word_embeddings=False, rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.25)),
    "gpt-neox-sequential": GPTNeoXConfig(**neox, tie_word_embeddings=True, use_parallel_residual=False, hidden_act="gelu_new",
                                         rope_parameters=dict(rope_type="default", rope_theta=5000.0, partial_rotary_factor=1.0)),
    "mixtral": MixtralConfig(**common, tie_word_embeddings=False, num_local_experts=3, num_experts_per_tok=2),
    "qwen2-moe": Qwen2MoeConfig(**common, tie_word_embeddings=False, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                                shared_expert_intermediate_size=24, norm_topk_prob=False, mlp_only_layers=[0]),
    "qwen3-moe": Qwen3MoeConfig(**common, tie_word_embeddings=True, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
                                norm_topk_prob=True),
}
for name, config in cases.items():
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    torch.manual_seed(1)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for n, p in model.named_parameters():
            p.copy_((torch.randn_like(p) * (0.3 if p.ndim == 2 else 0.2) + (1 if "norm" in n else 0)).bfloat16())
    ids = [(i * i * 7 + 3 * i) % 32 for i in range(40)]
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    path = os.path.join(here, name)
    model.to(torch.bfloat16).save_pretrained(path)  # last: it rounds the rotary frequencies of this model too
    for extra in ("generation_config.json",):
        if os.path.exists(os.path.join(path, extra)):
            os.unlink(os.path.join(path, extra))
    with open(os.path.join(path, "logits.json"), "w") as f:
        json.dump({"peer": "transformers " + transformers.__version__ + ", torch " + torch.__version__, "ids": ids,
                   "rows": [0, 12, 39], "logits": [[round(float(v), 6) for v in logits[r]] for r in (0, 12, 39)]}, f)
        f.write("\n")
