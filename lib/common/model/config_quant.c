/* quantization_config of config.json: whose layout the quantized layers have, and what their tensors leave open. What contradicts itself, or asks for a
 * layout that is not read, is refused here; what contradicts the tensors, when they are opened. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "model/config.h"

#define BAD(...) qp_err_set(err, QP_E_INPUT, "'%s': quantization_config: " __VA_ARGS__)

static const char *text(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static int get_whole(const json_t *o, const char *path, const char *key, int64_t fallback, int64_t *out, struct qp_err *err)
{
    const json_t *v = json_object_get(o, key);
    *out = fallback;
    if (!v || json_is_null(v))
        return fallback == INT64_MIN ? BAD("'%s' is missing", path, key) : 0;
    if (!json_is_integer(v))
        return BAD("'%s' is not a whole number", path, key);
    *out = json_integer_value(v);
    return 0;
}

static int get_group(const json_t *o, const char *path, int64_t *out, struct qp_err *err)
{
    if (get_whole(o, path, "group_size", INT64_MIN, out, err))
        return err->code;
    if (*out != -1 && (*out < 1 || *out > 1 << 24))
        return BAD("group_size is %lld, expected -1 (the whole row) or inputs that share a scale", path, (long long)*out);
    return 0;
}

/* GPTQModel and AutoGPTQ name the layout of the tensors twice. */
static int get_format(const json_t *o, const char *path, const char **out, struct qp_err *err)
{
    const char *old = text(o, "checkpoint_format"), *new = text(o, "format");
    if (old && new && strcmp(old, new))
        return BAD("checkpoint_format '%s' and format '%s' contradict each other", path, old, new);
    *out = old ? old : new;
    return 0;
}

static int read_gptq(struct qp_quant_config *q, const json_t *o, const char *path, struct qp_err *err)
{
    const char *format;
    if (get_format(o, path, &format, err) || get_whole(o, path, "bits", INT64_MIN, &q->bits, err) || get_group(o, path, &q->group_size, err))
        return err->code;
    if (format && strcmp(format, "gptq") && strcmp(format, "gptq_v2"))
        return BAD("checkpoint_format '%s' is not supported; supported: gptq, gptq_v2", path, format);
    if (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8)
        return BAD("bits is %lld, expected 2, 3, 4 or 8", path, (long long)q->bits);
    q->method = QP_QUANT_GPTQ;
    q->sym = !json_is_false(json_object_get(o, "sym"));
    q->zero_minus_one = !format || !strcmp(format, "gptq");
    q->mixed = json_object_size(json_object_get(o, "dynamic")) > 0;
    return 0;
}

static int read_awq(struct qp_quant_config *q, const json_t *o, const char *path, struct qp_err *err)
{
    const char *version = text(o, "version"), *format;
    if (get_format(o, path, &format, err) || get_whole(o, path, "bits", INT64_MIN, &q->bits, err) || get_group(o, path, &q->group_size, err))
        return err->code;
    version = version ? version : format;
    if (q->bits != 4)
        return BAD("bits is %lld; AWQ has 4", path, (long long)q->bits);
    if (version && strcasecmp(version, "gemm"))
        return BAD("AWQ version '%s' is not supported; supported: gemm", path, version);
    q->method = QP_QUANT_AWQ;
    return 0;
}

static int read_bnb(struct qp_quant_config *q, const json_t *o, const char *path, struct qp_err *err)
{
    bool four = json_is_true(json_object_get(o, "load_in_4bit")), eight = json_is_true(json_object_get(o, "load_in_8bit"));
    const json_t *threshold = json_object_get(o, "llm_int8_threshold");
    if (four == eight)
        return BAD("%s", path, four ? "load_in_4bit and load_in_8bit contradict each other" : "neither load_in_4bit nor load_in_8bit is true");
    if (threshold && !json_is_null(threshold) && (!json_is_number(threshold) || json_number_value(threshold) < 0))
        return BAD("llm_int8_threshold is no number of at least 0", path);
    q->method = QP_QUANT_BNB;
    q->bits = four ? 4 : 8;
    q->outlier_threshold = !eight ? 0 : json_is_number(threshold) ? json_number_value(threshold) : 6.0;
    return 0;
}

/* [rows, columns], or "128x128". */
static void read_block(struct qp_quant_config *q, const json_t *structure)
{
    long long rows, cols;
    if (json_array_size(structure) == 2) {
        q->block_rows = json_integer_value(json_array_get(structure, 0));
        q->block_cols = json_integer_value(json_array_get(structure, 1));
    } else if (json_is_string(structure) && sscanf(json_string_value(structure), "%lldx%lld", &rows, &cols) == 2) {
        q->block_rows = rows;
        q->block_cols = cols;
    }
}

static int read_ct_group(struct qp_quant_config *q, const json_t *weights, const char *path, bool first, struct qp_err *err)
{
    int64_t bits, size;
    const char *type = text(weights, "type");
    if (get_whole(weights, path, "num_bits", INT64_MIN, &bits, err) || get_whole(weights, path, "group_size", 0, &size, err))
        return err->code;
    if (bits < 1 || bits > 8 || (type && !strcmp(type, "float") && bits != 8))
        return BAD("weights of %lld bits of type '%s' are not supported; supported: int of 1 to 8, float of 8", path, (long long)bits, type ? type : "int");
    if (!first && (bits != q->bits || size != q->group_size))
        q->mixed = true;
    q->bits = bits;
    q->group_size = size > 0 ? size : 0;
    read_block(q, json_object_get(weights, "block_structure"));
    return 0;
}

static int read_ct(struct qp_quant_config *q, json_t *o, const char *path, struct qp_err *err)
{
    static const char *const formats[] = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision"};
    const char *format = text(o, "format"), *status = text(o, "quantization_status"), *sparsity = text(json_object_get(o, "sparsity_config"), "format"), *name;
    json_t *groups = json_object_get(o, "config_groups"), *group;
    bool known = false, first = true;
    for (size_t i = 0; format && i < sizeof formats / sizeof *formats; i++)
        known |= !strcmp(format, formats[i]);
    if (!known)
        return BAD("format '%s' is not supported; supported: pack-quantized, int-quantized, float-quantized", path, format ? format : "(missing)");
    if (status && strcmp(status, "compressed"))
        return BAD("quantization_status is '%s', expected 'compressed'", path, status);
    if (sparsity && strcmp(sparsity, "dense"))
        return BAD("sparsity format '%s' is not supported", path, sparsity);
    json_object_foreach(groups, name, group)
    {
        json_t *weights = json_object_get(group, "weights");
        if (!json_is_object(weights))
            continue;
        if (read_ct_group(q, weights, path, first, err))
            return err->code;
        first = false;
    }
    if (first)
        return BAD("config_groups quantizes no weights", path);
    q->method = QP_QUANT_CT;
    return 0;
}

int qp_config_read_quant(struct qp_quant_config *q, json_t *root, const char *path, struct qp_err *err)
{
    json_t *o = json_object_get(root, "quantization_config"), *other = json_object_get(root, "compression_config");
    const char *method;
    *q = (struct qp_quant_config){.method = QP_QUANT_NONE};
    o = o ? o : other;
    if (!o || json_is_null(o))
        return 0;
    if (!json_is_object(o))
        return qp_err_set(err, QP_E_INPUT, "'%s': quantization_config is not an object", path);
    method = text(o, "quant_method");
    method = !method && (json_object_get(o, "load_in_4bit") || json_object_get(o, "load_in_8bit")) ? "bitsandbytes" : method; /* older ones say no more */
    if (method && !strcmp(method, "gptq"))
        return read_gptq(q, o, path, err);
    if (method && !strcmp(method, "awq"))
        return read_awq(q, o, path, err);
    if (method && !strcmp(method, "bitsandbytes"))
        return read_bnb(q, o, path, err);
    if (method && !strcmp(method, "compressed-tensors"))
        return read_ct(q, o, path, err);
    return BAD("quant_method '%s' is not supported; supported: gptq, awq, bitsandbytes, compressed-tensors", path, method ? method : "(missing)");
}
