#include "model/arch.h"

#include <string.h>

static const struct qp_arch archs[] = {
    {"llama", "llama", false, false, true},     /* Llama 1 to 3.x, SmolLM, SmolLM2, TinyLlama */
    {"mistral", "mistral", false, false, true}, /* as GGUF: "llama" */
    {"qwen2", "qwen2", true, false, false},
    {"qwen3", "qwen3", false, true, false},
};

const struct qp_arch *qp_arch_by_hf(const char *model_type)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].hf, model_type))
            return &archs[i];
    return NULL;
}

const struct qp_arch *qp_arch_by_gguf(const char *architecture)
{
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++)
        if (!strcmp(archs[i].gguf, architecture))
            return &archs[i];
    return NULL;
}

const char *qp_arch_list(void)
{
    return "llama, mistral, qwen2, qwen3";
}

int64_t qp_dim(const struct qp_model_config *c, enum qp_dim d)
{
    switch (d) {
    case QP_DIM_D: return c->d_model;
    case QP_DIM_F: return c->d_ff;
    case QP_DIM_V: return c->vocab_size;
    case QP_DIM_Q: return c->n_heads * c->head_dim;
    case QP_DIM_KV: return c->n_kv_heads * c->head_dim;
    case QP_DIM_HD: return c->head_dim;
    default: return 1;
    }
}

const struct qp_part qp_layer_parts[] = {
    {"input_layernorm.weight", "attn_norm.weight", QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, false, QP_DIM_1},
    {"self_attn.q_proj.weight", "attn_q.weight", QP_DIM_Q, QP_DIM_D, QP_NEED_ALWAYS, true, QP_DIM_Q},
    {"self_attn.k_proj.weight", "attn_k.weight", QP_DIM_KV, QP_DIM_D, QP_NEED_ALWAYS, true, QP_DIM_KV},
    {"self_attn.v_proj.weight", "attn_v.weight", QP_DIM_KV, QP_DIM_D, QP_NEED_ALWAYS, true, QP_DIM_1},
    {"self_attn.o_proj.weight", "attn_output.weight", QP_DIM_D, QP_DIM_Q, QP_NEED_ALWAYS, true, QP_DIM_1},
    {"self_attn.q_proj.bias", "attn_q.bias", QP_DIM_1, QP_DIM_Q, QP_NEED_QKV_BIAS, false, QP_DIM_Q},
    {"self_attn.k_proj.bias", "attn_k.bias", QP_DIM_1, QP_DIM_KV, QP_NEED_QKV_BIAS, false, QP_DIM_KV},
    {"self_attn.v_proj.bias", "attn_v.bias", QP_DIM_1, QP_DIM_KV, QP_NEED_QKV_BIAS, false, QP_DIM_1},
    {"self_attn.o_proj.bias", "attn_output.bias", QP_DIM_1, QP_DIM_D, QP_NEED_O_BIAS, false, QP_DIM_1},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", QP_DIM_1, QP_DIM_HD, QP_NEED_QK_NORM, false, QP_DIM_1},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", QP_DIM_1, QP_DIM_HD, QP_NEED_QK_NORM, false, QP_DIM_1},
    {"post_attention_layernorm.weight", "ffn_norm.weight", QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, false, QP_DIM_1},
    {"mlp.gate_proj.weight", "ffn_gate.weight", QP_DIM_F, QP_DIM_D, QP_NEED_ALWAYS, true, QP_DIM_1},
    {"mlp.up_proj.weight", "ffn_up.weight", QP_DIM_F, QP_DIM_D, QP_NEED_ALWAYS, true, QP_DIM_1},
    {"mlp.down_proj.weight", "ffn_down.weight", QP_DIM_D, QP_DIM_F, QP_NEED_ALWAYS, true, QP_DIM_1},
    {"mlp.gate_proj.bias", "ffn_gate.bias", QP_DIM_1, QP_DIM_F, QP_NEED_MLP_BIAS, false, QP_DIM_1},
    {"mlp.up_proj.bias", "ffn_up.bias", QP_DIM_1, QP_DIM_F, QP_NEED_MLP_BIAS, false, QP_DIM_1},
    {"mlp.down_proj.bias", "ffn_down.bias", QP_DIM_1, QP_DIM_D, QP_NEED_MLP_BIAS, false, QP_DIM_1},
    {0},
};

const struct qp_part qp_model_parts[] = {
    {"model.embed_tokens.weight", "token_embd.weight", QP_DIM_V, QP_DIM_D, QP_NEED_ALWAYS, false, QP_DIM_1},
    {"model.norm.weight", "output_norm.weight", QP_DIM_1, QP_DIM_D, QP_NEED_ALWAYS, false, QP_DIM_1},
    {"lm_head.weight", "output.weight", QP_DIM_V, QP_DIM_D, QP_NEED_UNTIED, false, QP_DIM_1},
    {0},
};

bool qp_part_needed(const struct qp_part *p, const struct qp_model_config *c)
{
    switch (p->need) {
    case QP_NEED_QKV_BIAS: return c->qkv_bias;
    case QP_NEED_O_BIAS: return c->o_bias;
    case QP_NEED_MLP_BIAS: return c->mlp_bias;
    case QP_NEED_QK_NORM: return c->qk_norm;
    case QP_NEED_UNTIED: return !c->tied_embeddings;
    default: return true;
    }
}
