#include "model/arch.h"

#include <string.h>

#define LINEAR QP_PART_LINEAR
#define BIAS QP_PART_BIAS

/* Attention and norms as in Llama; what follows differs by family. */
#define LLAMA_NORM1 {"input_layernorm.weight", "attn_norm.weight", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1}
#define LLAMA_QKV                                                                                                                           \
    {"self_attn.q_proj.weight", "attn_q.weight", QP_ROLE_Q, QP_DIM_Q, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_Q},                          \
    {"self_attn.k_proj.weight", "attn_k.weight", QP_ROLE_K, QP_DIM_KV, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_KV},                        \
    {"self_attn.v_proj.weight", "attn_v.weight", QP_ROLE_V, QP_DIM_KV, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},                         \
    {"self_attn.q_proj.bias", "attn_q.bias", QP_ROLE_Q, QP_DIM_1, QP_DIM_Q, QP_NEED_QKV_BIAS, BIAS, QP_DIM_Q},                              \
    {"self_attn.k_proj.bias", "attn_k.bias", QP_ROLE_K, QP_DIM_1, QP_DIM_KV, QP_NEED_QKV_BIAS, BIAS, QP_DIM_KV},                            \
    {"self_attn.v_proj.bias", "attn_v.bias", QP_ROLE_V, QP_DIM_1, QP_DIM_KV, QP_NEED_QKV_BIAS, BIAS, QP_DIM_1}
#define LLAMA_O                                                                                                                             \
    {"self_attn.o_proj.weight", "attn_output.weight", QP_ROLE_O, QP_DIM_D, QP_DIM_Q, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},                     \
    {"self_attn.o_proj.bias", "attn_output.bias", QP_ROLE_O, QP_DIM_1, QP_DIM_D, QP_NEED_O_BIAS, BIAS, QP_DIM_1}
#define QK_NORM(q, kv)                                                                                                                      \
    {"self_attn.q_norm.weight", "attn_q_norm.weight", QP_ROLE_Q_NORM, QP_DIM_1, q, QP_NEED_QK_NORM, 0, QP_DIM_1},                           \
    {"self_attn.k_norm.weight", "attn_k_norm.weight", QP_ROLE_K_NORM, QP_DIM_1, kv, QP_NEED_QK_NORM, 0, QP_DIM_1}
#define LLAMA_ATTENTION LLAMA_NORM1, LLAMA_QKV, LLAMA_O, QK_NORM(QP_DIM_HD, QP_DIM_HD)
#define LLAMA_NORM2 {"post_attention_layernorm.weight", "ffn_norm.weight", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1}
#define LLAMA_MLP(need)                                                                                                     \
    {"mlp.gate_proj.weight", "ffn_gate.weight", QP_ROLE_GATE, QP_DIM_F, QP_DIM_D, need, LINEAR, QP_DIM_1},                  \
    {"mlp.up_proj.weight", "ffn_up.weight", QP_ROLE_UP, QP_DIM_F, QP_DIM_D, need, LINEAR, QP_DIM_1},                        \
    {"mlp.down_proj.weight", "ffn_down.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_F, need, LINEAR, QP_DIM_1}

static const struct qp_part llama_layer[] = {
    LLAMA_ATTENTION,
    LLAMA_NORM2,
    LLAMA_MLP(QP_NEED_ALWAYS),
    {"mlp.gate_proj.bias", "ffn_gate.bias", QP_ROLE_GATE, QP_DIM_1, QP_DIM_F, QP_NEED_MLP_BIAS, BIAS, QP_DIM_1},
    {"mlp.up_proj.bias", "ffn_up.bias", QP_ROLE_UP, QP_DIM_1, QP_DIM_F, QP_NEED_MLP_BIAS, BIAS, QP_DIM_1},
    {"mlp.down_proj.bias", "ffn_down.bias", QP_ROLE_DOWN, QP_DIM_1, QP_DIM_D, QP_NEED_MLP_BIAS, BIAS, QP_DIM_1},
    {0},
};

static const struct qp_part llama_model[] = {
    {"model.embed_tokens.weight", "token_embd.weight", QP_ROLE_EMBED, QP_DIM_V, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"model.norm.weight", "output_norm.weight", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"lm_head.weight", "output.weight", QP_ROLE_HEAD, QP_DIM_V, QP_DIM_D, QP_NEED_UNTIED, 0, QP_DIM_1},
    {0},
};

static const struct qp_part gemma_layer[] = {
    LLAMA_ATTENTION,
    {"post_attention_layernorm.weight", "post_attention_norm.weight", QP_ROLE_POST_ATTENTION_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"pre_feedforward_layernorm.weight", "ffn_norm.weight", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    LLAMA_MLP(QP_NEED_ALWAYS),
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", QP_ROLE_POST_MLP_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {0},
};

static const struct qp_part olmo2_layer[] = {
    LLAMA_QKV,
    LLAMA_O,
    QK_NORM(QP_DIM_Q, QP_DIM_KV),
    {"post_attention_layernorm.weight", "post_attention_norm.weight", QP_ROLE_POST_ATTENTION_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    LLAMA_MLP(QP_NEED_ALWAYS),
    {"post_feedforward_layernorm.weight", "post_ffw_norm.weight", QP_ROLE_POST_MLP_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {0},
};

static const struct qp_part phi3_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"self_attn.qkv_proj.weight", "attn_qkv.weight", QP_ROLE_QKV, QP_DIM_QKV, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"self_attn.o_proj.weight", "attn_output.weight", QP_ROLE_O, QP_DIM_D, QP_DIM_Q, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    LLAMA_NORM2,
    {"mlp.gate_up_proj.weight", "ffn_up.weight", QP_ROLE_GATE_UP, QP_DIM_2F, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"mlp.down_proj.weight", "ffn_down.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_F, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {0},
};

#define EXPERT (LINEAR | QP_PART_EXPERT)
static const struct qp_part mixtral_layer[] = {
    LLAMA_ATTENTION,
    LLAMA_NORM2,
    {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight", QP_ROLE_ROUTER, QP_DIM_E, QP_DIM_D, QP_NEED_EXPERTS, 0, QP_DIM_1},
    {"block_sparse_moe.experts.*.w1.weight", "ffn_gate_exps.weight", QP_ROLE_GATE, QP_DIM_FE, QP_DIM_D, QP_NEED_EXPERTS, EXPERT, QP_DIM_1},
    {"block_sparse_moe.experts.*.w3.weight", "ffn_up_exps.weight", QP_ROLE_UP, QP_DIM_FE, QP_DIM_D, QP_NEED_EXPERTS, EXPERT, QP_DIM_1},
    {"block_sparse_moe.experts.*.w2.weight", "ffn_down_exps.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_FE, QP_NEED_EXPERTS, EXPERT, QP_DIM_1},
    {0},
};

static const struct qp_part qwen_moe_layer[] = {
    LLAMA_ATTENTION,
    LLAMA_NORM2,
    LLAMA_MLP(QP_NEED_DENSE),
    {"mlp.gate.weight", "ffn_gate_inp.weight", QP_ROLE_ROUTER, QP_DIM_E, QP_DIM_D, QP_NEED_EXPERTS, 0, QP_DIM_1},
    {"mlp.experts.*.gate_proj.weight", "ffn_gate_exps.weight", QP_ROLE_GATE, QP_DIM_FE, QP_DIM_D, QP_NEED_EXPERTS, EXPERT, QP_DIM_1},
    {"mlp.experts.*.up_proj.weight", "ffn_up_exps.weight", QP_ROLE_UP, QP_DIM_FE, QP_DIM_D, QP_NEED_EXPERTS, EXPERT, QP_DIM_1},
    {"mlp.experts.*.down_proj.weight", "ffn_down_exps.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_FE, QP_NEED_EXPERTS, EXPERT, QP_DIM_1},
    {"mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight", QP_ROLE_SHARED_ROUTER, QP_DIM_1, QP_DIM_D, QP_NEED_SHARED, 0, QP_DIM_1},
    {"mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight", QP_ROLE_SHARED_GATE, QP_DIM_FS, QP_DIM_D, QP_NEED_SHARED, LINEAR, QP_DIM_1},
    {"mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight", QP_ROLE_SHARED_UP, QP_DIM_FS, QP_DIM_D, QP_NEED_SHARED, LINEAR, QP_DIM_1},
    {"mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight", QP_ROLE_SHARED_DOWN, QP_DIM_D, QP_DIM_FS, QP_NEED_SHARED, LINEAR, QP_DIM_1},
    {0},
};

#define NORM1_BIAS {"input_layernorm.bias", "attn_norm.bias", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1}
static const struct qp_part stablelm_layer[] = {
    LLAMA_NORM1,
    NORM1_BIAS,
    LLAMA_QKV,
    LLAMA_O,
    LLAMA_NORM2,
    {"post_attention_layernorm.bias", "ffn_norm.bias", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    LLAMA_MLP(QP_NEED_ALWAYS),
    {0},
};

static const struct qp_part stablelm_model[] = {
    {"model.embed_tokens.weight", "token_embd.weight", QP_ROLE_EMBED, QP_DIM_V, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"model.norm.weight", "output_norm.weight", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"model.norm.bias", "output_norm.bias", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"lm_head.weight", "output.weight", QP_ROLE_HEAD, QP_DIM_V, QP_DIM_D, QP_NEED_UNTIED, 0, QP_DIM_1},
    {0},
};

/* One norm serves attention and MLP. */
static const struct qp_part phi_layer[] = {
    LLAMA_NORM1,
    NORM1_BIAS,
    LLAMA_QKV,
    {"self_attn.dense.weight", "attn_output.weight", QP_ROLE_O, QP_DIM_D, QP_DIM_Q, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"self_attn.dense.bias", "attn_output.bias", QP_ROLE_O, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"mlp.fc1.weight", "ffn_up.weight", QP_ROLE_UP, QP_DIM_F, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"mlp.fc1.bias", "ffn_up.bias", QP_ROLE_UP, QP_DIM_1, QP_DIM_F, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"mlp.fc2.weight", "ffn_down.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_F, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"mlp.fc2.bias", "ffn_down.bias", QP_ROLE_DOWN, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {0},
};

static const struct qp_part phi_model[] = {
    {"model.embed_tokens.weight", "token_embd.weight", QP_ROLE_EMBED, QP_DIM_V, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"model.final_layernorm.weight", "output_norm.weight", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"model.final_layernorm.bias", "output_norm.bias", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"lm_head.weight", "output.weight", QP_ROLE_HEAD, QP_DIM_V, QP_DIM_D, QP_NEED_UNTIED, 0, QP_DIM_1},
    {"lm_head.bias", "output.bias", QP_ROLE_HEAD, QP_DIM_1, QP_DIM_V, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {0},
};

#define TURNED (LINEAR | QP_PART_TRANSPOSED)
static const struct qp_part gpt2_layer[] = {
    {"ln_1.weight", "attn_norm.weight", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"ln_1.bias", "attn_norm.bias", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"attn.c_attn.weight", "attn_qkv.weight", QP_ROLE_QKV, QP_DIM_QKV, QP_DIM_D, QP_NEED_ALWAYS, TURNED, QP_DIM_1},
    {"attn.c_attn.bias", "attn_qkv.bias", QP_ROLE_QKV, QP_DIM_1, QP_DIM_QKV, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"attn.c_proj.weight", "attn_output.weight", QP_ROLE_O, QP_DIM_D, QP_DIM_Q, QP_NEED_ALWAYS, TURNED, QP_DIM_1},
    {"attn.c_proj.bias", "attn_output.bias", QP_ROLE_O, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"ln_2.weight", "ffn_norm.weight", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"ln_2.bias", "ffn_norm.bias", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"mlp.c_fc.weight", "ffn_up.weight", QP_ROLE_UP, QP_DIM_F, QP_DIM_D, QP_NEED_ALWAYS, TURNED, QP_DIM_1},
    {"mlp.c_fc.bias", "ffn_up.bias", QP_ROLE_UP, QP_DIM_1, QP_DIM_F, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"mlp.c_proj.weight", "ffn_down.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_F, QP_NEED_ALWAYS, TURNED, QP_DIM_1},
    {"mlp.c_proj.bias", "ffn_down.bias", QP_ROLE_DOWN, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {0},
};

static const struct qp_part gpt2_model[] = {
    {"transformer.wte.weight", "token_embd.weight", QP_ROLE_EMBED, QP_DIM_V, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"transformer.wpe.weight", "position_embd.weight", QP_ROLE_POSITIONS, QP_DIM_P, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"transformer.ln_f.weight", "output_norm.weight", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"transformer.ln_f.bias", "output_norm.bias", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"lm_head.weight", "output.weight", QP_ROLE_HEAD, QP_DIM_V, QP_DIM_D, QP_NEED_UNTIED, 0, QP_DIM_1},
    {0},
};

#define BY_HEAD QP_PART_BY_HEAD
static const struct qp_part neox_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"input_layernorm.bias", "attn_norm.bias", QP_ROLE_NORM1, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"attention.query_key_value.weight", "attn_qkv.weight", QP_ROLE_QKV, QP_DIM_QKV, QP_DIM_D, QP_NEED_ALWAYS, LINEAR | BY_HEAD, QP_DIM_1},
    {"attention.query_key_value.bias", "attn_qkv.bias", QP_ROLE_QKV, QP_DIM_1, QP_DIM_QKV, QP_NEED_QKV_BIAS, BIAS | BY_HEAD, QP_DIM_1},
    {"attention.dense.weight", "attn_output.weight", QP_ROLE_O, QP_DIM_D, QP_DIM_Q, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"attention.dense.bias", "attn_output.bias", QP_ROLE_O, QP_DIM_1, QP_DIM_D, QP_NEED_O_BIAS, BIAS, QP_DIM_1},
    {"post_attention_layernorm.weight", "ffn_norm.weight", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"post_attention_layernorm.bias", "ffn_norm.bias", QP_ROLE_NORM2, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"mlp.dense_h_to_4h.weight", "ffn_up.weight", QP_ROLE_UP, QP_DIM_F, QP_DIM_D, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"mlp.dense_h_to_4h.bias", "ffn_up.bias", QP_ROLE_UP, QP_DIM_1, QP_DIM_F, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"mlp.dense_4h_to_h.weight", "ffn_down.weight", QP_ROLE_DOWN, QP_DIM_D, QP_DIM_F, QP_NEED_ALWAYS, LINEAR, QP_DIM_1},
    {"mlp.dense_4h_to_h.bias", "ffn_down.bias", QP_ROLE_DOWN, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {0},
};

static const struct qp_part neox_model[] = {
    {"gpt_neox.embed_in.weight", "token_embd.weight", QP_ROLE_EMBED, QP_DIM_V, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"gpt_neox.final_layer_norm.weight", "output_norm.weight", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, 0, QP_DIM_1},
    {"gpt_neox.final_layer_norm.bias", "output_norm.bias", QP_ROLE_FINAL_NORM, QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, BIAS, QP_DIM_1},
    {"embed_out.weight", "output.weight", QP_ROLE_HEAD, QP_DIM_V, QP_DIM_D, QP_NEED_UNTIED, 0, QP_DIM_1},
    {0},
};

static const struct qp_arch archs[] = {
    /* Llama 1 to 3.x, SmolLM, SmolLM2, TinyLlama */
    {.hf = "llama", .gguf = "llama", .class_name = "LlamaForCausalLM", .layers = "model.layers", .layer_parts = llama_layer, .model_parts = llama_model,
     .gguf_rotated = true},
    {.hf = "mistral", .gguf = "mistral", .class_name = "MistralForCausalLM", .layers = "model.layers", .layer_parts = llama_layer, .model_parts = llama_model,
     .gguf_rotated = true, .windowed = true}, /* as GGUF: "llama" */
    {.hf = "qwen2", .gguf = "qwen2", .class_name = "Qwen2ForCausalLM", .layers = "model.layers", .layer_parts = llama_layer, .model_parts = llama_model,
     .qkv_bias = true},
    {.hf = "qwen3", .gguf = "qwen3", .class_name = "Qwen3ForCausalLM", .layers = "model.layers", .layer_parts = llama_layer, .model_parts = llama_model,
     .qk_norm = true},
    {.hf = "gemma2", .gguf = "gemma2", .layers = "model.layers", .layer_parts = gemma_layer, .model_parts = llama_model, .norm = QP_NORM_RMS_PLUS_ONE,
     .activation = QP_ACT_GELU_TANH, .windowed = true},
    {.hf = "gemma3_text", .gguf = "gemma3", .layers = "model.layers", .layer_parts = gemma_layer, .model_parts = llama_model, .norm = QP_NORM_RMS_PLUS_ONE,
     .activation = QP_ACT_GELU_TANH, .qk_norm = true, .windowed = true},
    {.hf = "olmo2", .gguf = "olmo2", .layers = "model.layers", .layer_parts = olmo2_layer, .model_parts = llama_model, .qk_norm = true, .qk_norm_wide = true},
    {.hf = "stablelm", .gguf = "stablelm", .layers = "model.layers", .layer_parts = stablelm_layer, .model_parts = stablelm_model, .norm = QP_NORM_LAYER},
    /* Phi-1, Phi-1.5, Phi-2 */
    {.hf = "phi", .gguf = "phi2", .layers = "model.layers", .layer_parts = phi_layer, .model_parts = phi_model, .norm = QP_NORM_LAYER, .activation = QP_ACT_GELU_TANH,
     .qkv_bias = true, .plain = true, .parallel = true},
    {.hf = "phi3", .gguf = "phi3", .layers = "model.layers", .layer_parts = phi3_layer, .model_parts = llama_model, .windowed = true},
    {.hf = "gpt2", .gguf = "gpt2", .layers = "transformer.h", .layer_parts = gpt2_layer, .model_parts = gpt2_model, .norm = QP_NORM_LAYER,
     .activation = QP_ACT_GELU_TANH, .plain = true},
    {.hf = "gpt_neox", .gguf = "gptneox", .layers = "gpt_neox.layers", .layer_parts = neox_layer, .model_parts = neox_model, .norm = QP_NORM_LAYER,
     .activation = QP_ACT_GELU_ERF, .plain = true},
    {.hf = "mixtral", .gguf = "llama", .layers = "model.layers", .layer_parts = mixtral_layer, .model_parts = llama_model, .gguf_rotated = true, .windowed = true,
     .experts = true, .norm_topk = true},
    {.hf = "qwen2_moe", .gguf = "qwen2moe", .layers = "model.layers", .layer_parts = qwen_moe_layer, .model_parts = llama_model, .qkv_bias = true, .experts = true},
    {.hf = "qwen3_moe", .gguf = "qwen3moe", .layers = "model.layers", .layer_parts = qwen_moe_layer, .model_parts = llama_model, .qk_norm = true, .experts = true,
     .norm_topk = true},
};

const struct qp_arch *qp_arch_by_hf(const char *model_type)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].hf, model_type))
            return &archs[i];
    return NULL;
}

const struct qp_arch *qp_arch_by_gguf(const char *architecture, bool experts)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].gguf, architecture) && archs[i].experts == experts)
            return &archs[i];
    return NULL;
}

const char *qp_arch_list(void)
{
    return "llama, mistral, qwen2, qwen3, gemma2, gemma3_text, olmo2, stablelm, phi, phi3, gpt2, gpt_neox, mixtral, qwen2_moe, qwen3_moe";
}

int64_t qp_dim(const struct qp_model_config *c, enum qp_dim d)
{
    switch (d) {
    case QP_DIM_D: return c->d_model;
    case QP_DIM_F: return c->d_ff;
    case QP_DIM_2F: return 2 * c->d_ff;
    case QP_DIM_V: return c->vocab_size;
    case QP_DIM_Q: return c->n_heads * c->head_dim;
    case QP_DIM_KV: return c->n_kv_heads * c->head_dim;
    case QP_DIM_QKV: return (c->n_heads + 2 * c->n_kv_heads) * c->head_dim;
    case QP_DIM_HD: return c->head_dim;
    case QP_DIM_P: return c->max_positions;
    case QP_DIM_E: return c->n_experts;
    case QP_DIM_FE: return c->d_ff_expert;
    case QP_DIM_FS: return c->d_ff_shared;
    default: return 1;
    }
}

bool qp_part_needed(const struct qp_part *p, const struct qp_model_config *c, int64_t layer)
{
    bool experts = qp_config_has_experts(c, layer);
    switch (p->need) {
    case QP_NEED_QKV_BIAS: return c->qkv_bias;
    case QP_NEED_O_BIAS: return c->o_bias;
    case QP_NEED_MLP_BIAS: return c->mlp_bias;
    case QP_NEED_QK_NORM: return c->qk_norm;
    case QP_NEED_UNTIED: return !c->tied_embeddings;
    case QP_NEED_DENSE: return !experts;
    case QP_NEED_EXPERTS: return experts;
    case QP_NEED_SHARED: return experts && c->d_ff_shared > 0;
    default: return true;
    }
}
