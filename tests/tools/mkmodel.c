/* Writes a random model as a Hugging Face directory, for tests: mkmodel DIR [key=value...]
 *   layers=2 d=64 ff=96 heads=4 kv=2 vocab=300 seed=1   shape (defaults shown); the tokenizer has 300 tokens
 *   head=0 dtype=f16                                     1: a head of its own, not the embeddings; f16 or bf16
 *   TinyLlama's shape, 2.2 GB: layers=22 d=2048 ff=5632 heads=32 kv=4 vocab=32000 head=1 dtype=bf16
 *   break=nan|heads|merge|shard|short|huge|zero         what is wrong with it: a NaN weight, zero heads in config.json, a merge whose parts are
 *                                                        unknown, an index that names a missing shard, a weight file that ends early, weights whose
 *                                                        activations overflow, norms of zero */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "model/safetensors.h"
#include "text/tokenizer.h"

struct options {
    const char *dir, *broken;
    long layers, d, ff, heads, kv, vocab, seed, head;
    enum qp_dtype dtype;
};

static void die(const char *what)
{
    fprintf(stderr, "mkmodel: %s\n", what);
    exit(1);
}

static FILE *create(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f)
        die(path);
    return f;
}

static void write_config(const struct options *o)
{
    FILE *f = create(o->dir, "config.json");
    fprintf(f,
            "{\"model_type\": \"llama\", \"hidden_size\": %ld, \"intermediate_size\": %ld, \"num_hidden_layers\": %ld, \"num_attention_heads\": %ld,\n"
            " \"num_key_value_heads\": %ld, \"vocab_size\": %ld, \"max_position_embeddings\": 2048, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0,\n"
            " \"tie_word_embeddings\": %s, \"architectures\": [\"LlamaForCausalLM\"]}\n",
            o->d, o->ff, o->layers, !strcmp(o->broken, "heads") ? 0 : o->heads, o->kv, o->vocab, o->head ? "false" : "true");
    fclose(f);
}

/* Byte-level: 256 bytes, then merges of two letters. */
static void write_tokenizer(const struct options *o)
{
    static char texts[300][4];
    const char *tokens[300], *merges[44];
    static char merge_text[44][4];
    size_t lengths[300];
    int n = 0, m = 0;
    for (int b = 0; b < 256; b++, n++) {
        unsigned c = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae ? (unsigned)b : b <= 0x20 ? 256u + (unsigned)b : b <= 0xa0 ? 289u + (unsigned)b - 0x7f : 323u;
        lengths[n] = c < 0x80 ? 1 : 2;
        texts[n][0] = c < 0x80 ? (char)c : (char)(0xc0 | c >> 6);
        texts[n][1] = c < 0x80 ? 0 : (char)(0x80 | (c & 63));
        tokens[n] = texts[n];
    }
    for (; m < 44; m++, n++) {
        snprintf(texts[n], 4, "%c%c", "etaoinsrhld"[m % 11], "aeio"[m / 11]);
        snprintf(merge_text[m], 4, "%c %c", texts[n][0], texts[n][1]);
        tokens[n] = texts[n];
        lengths[n] = 2;
        merges[m] = merge_text[m];
    }
    if (!strcmp(o->broken, "merge"))
        texts[280][0] = '~'; /* the vocabulary loses what a merge gives */
    struct qp_tokenizer_spec spec = {.model = "gpt2", .pre = "gpt-2", .tokens = tokens, .token_bytes = lengths, .n_tokens = 300, .merges = merges, .n_merges = 44,
                                     .bos = -1, .eos = -1, .unk = -1, .pad = -1};
    struct qp_tokenizer *t;
    struct qp_err err = {0};
    if (!strcmp(o->broken, "merge")) {
        FILE *f = create(o->dir, "tokenizer.json");
        fputs("{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": [\"a b\"]}, \"pre_tokenizer\": {\"type\": \"ByteLevel\"}}\n", f);
        fclose(f);
        return;
    }
    if (qp_tokenizer_new(&t, &spec, &err) || qp_tokenizer_save(t, o->dir, &err))
        die(err.text);
    qp_tokenizer_free(t);
}

struct decls {
    struct qp_tensor t[2048];
    size_t n;
};

static void declare(struct decls *d, enum qp_dtype dtype, const char *fmt, long layer, long rows, long cols)
{
    char name[128];
    snprintf(name, sizeof name, fmt, layer);
    d->t[d->n++] = (struct qp_tensor){.name = strdup(name), .dtype = dtype, .ndim = rows > 1 ? 2 : 1, .shape = {rows > 1 ? rows : cols, cols}, .bytes = (size_t)(rows * cols) * 2};
}

static uint16_t to_dtype(const struct options *o, float x)
{
    return o->dtype == QP_DT_BF16 ? qp_f32_to_bf16(x) : qp_f32_to_f16(x);
}

static void declare_all(struct decls *d, const struct options *o)
{
    long q = o->d, kv = o->d / o->heads * o->kv;
    declare(d, o->dtype, "model.embed_tokens.weight", 0, o->vocab, o->d);
    declare(d, o->dtype, "model.norm.weight", 0, 1, o->d);
    if (o->head)
        declare(d, o->dtype, "lm_head.weight", 0, o->vocab, o->d);
    for (long l = 0; l < o->layers; l++) {
        declare(d, o->dtype, "model.layers.%ld.input_layernorm.weight", l, 1, o->d);
        declare(d, o->dtype, "model.layers.%ld.post_attention_layernorm.weight", l, 1, o->d);
        declare(d, o->dtype, "model.layers.%ld.self_attn.q_proj.weight", l, q, o->d);
        declare(d, o->dtype, "model.layers.%ld.self_attn.k_proj.weight", l, kv, o->d);
        declare(d, o->dtype, "model.layers.%ld.self_attn.v_proj.weight", l, kv, o->d);
        declare(d, o->dtype, "model.layers.%ld.self_attn.o_proj.weight", l, o->d, q);
        declare(d, o->dtype, "model.layers.%ld.mlp.gate_proj.weight", l, o->ff, o->d);
        declare(d, o->dtype, "model.layers.%ld.mlp.up_proj.weight", l, o->ff, o->d);
        declare(d, o->dtype, "model.layers.%ld.mlp.down_proj.weight", l, o->d, o->ff);
    }
}

static void write_weights(const struct options *o)
{
    struct decls *d = calloc(1, sizeof *d);
    struct qp_st_writer *w;
    struct qp_err err = {0};
    struct qp_rng rng = qp_rng_seed((uint64_t)o->seed);
    char path[4096];
    declare_all(d, o);
    snprintf(path, sizeof path, "%s/%s", o->dir, !strcmp(o->broken, "shard") ? "model-00001-of-00002.safetensors" : "model.safetensors");
    if (qp_st_writer_open(&w, path, d->t, d->n, &err))
        die(err.text);
    for (size_t i = 0; i < d->n; i++) {
        size_t n = d->t[i].bytes / 2;
        uint16_t *x = malloc(n * 2);
        bool huge = !strcmp(o->broken, "huge"), norm = d->t[i].ndim == 1;
        double scale = norm ? 0 : huge ? 3e4 : 0.64 / sqrt((double)o->d), one = !norm || !strcmp(o->broken, "zero") ? 0 : huge ? 6e4 : 1;
        for (size_t k = 0; k < n; k++) /* a sum of four uniform numbers is nearly normal */
            x[k] = to_dtype(o, (float)(one + scale * ((double)(qp_rng_next(&rng) >> 8) + (double)(qp_rng_next(&rng) >> 8) - 0x1p24) * 0x1p-23));
        if (!strcmp(o->broken, "nan") && i == 5)
            x[7] = to_dtype(o, NAN);
        if (qp_st_writer_add(w, x, n * 2, &err))
            die(err.text);
        free(x);
        free((void *)(uintptr_t)d->t[i].name);
    }
    if (qp_st_writer_commit(w, &err))
        die(err.text);
    free(d);
    if (!strcmp(o->broken, "short") && truncate(path, 20000))
        die("cannot truncate");
    if (!strcmp(o->broken, "shard")) {
        FILE *f = create(o->dir, "model.safetensors.index.json");
        fputs("{\"weight_map\": {\"model.norm.weight\": \"model-00001-of-00002.safetensors\", \"x\": \"model-00002-of-00002.safetensors\"}}\n", f);
        fclose(f);
    }
}

int main(int argc, char **argv)
{
    struct options o = {.dir = argc > 1 ? argv[1] : NULL, .broken = "", .layers = 2, .d = 64, .ff = 96, .heads = 4, .kv = 2, .vocab = 300, .seed = 1, .dtype = QP_DT_F16};
    struct {
        const char *key;
        long *value;
    } keys[] = {{"layers=", &o.layers}, {"d=", &o.d}, {"ff=", &o.ff}, {"heads=", &o.heads}, {"kv=", &o.kv}, {"vocab=", &o.vocab}, {"seed=", &o.seed}, {"head=", &o.head}};
    if (!o.dir)
        die("usage: mkmodel DIR [key=value...]");
    for (int i = 2; i < argc; i++) {
        if (!strncmp(argv[i], "break=", 6))
            o.broken = argv[i] + 6;
        if (!strcmp(argv[i], "dtype=bf16"))
            o.dtype = QP_DT_BF16;
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            if (!strncmp(argv[i], keys[k].key, strlen(keys[k].key)))
                *keys[k].value = strtol(argv[i] + strlen(keys[k].key), NULL, 10);
    }
    mkdir(o.dir, 0777);
    write_config(&o);
    write_tokenizer(&o);
    write_weights(&o);
    return 0;
}
