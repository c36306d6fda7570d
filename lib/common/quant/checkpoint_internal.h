/* What checkpoint.c, checkpoint_files.c (safetensors), checkpoint_gguf.c, checkpoint_resume.c (the journal) and checkpoint_check.c share. Private to quant/. */
#ifndef QP_QUANT_CHECKPOINT_INTERNAL_H
#define QP_QUANT_CHECKPOINT_INTERNAL_H

#include "base/buf.h"
#include "model/safetensors.h"
#include "quant/checkpoint.h"
#include "quant/journal.h"

struct qp_ck_slot { /* a weight of the model */
    const struct qp_weight *w;
    bool quantized, done; /* done: added, or set */
    size_t first, n;      /* its tensors among the declarations */
    size_t at;            /* GGUF: where it begins in its tensor */
    uint64_t sum;         /* once done: XXH64 of the decoded values; of a safetensors file's dense weights, of the float16 ones */
};

struct qp_ck_file {
    char *name;
    struct qp_image *image;
    size_t first, n; /* its tensors */
};

struct qp_ck_gguf;

/* A kind of checkpoint: what it is made of. */
struct qp_ck_kind {
    const char *result; /* what becomes PATH, in PATH.part */
    /* Fills slots and decl. */
    int (*declare)(struct qp_checkpoint *ck, struct qp_err *err);
    /* fresh: makes the files; else goes on with those that are there. */
    int (*open)(struct qp_checkpoint *ck, bool fresh, struct qp_err *err);
    /* A quantized layer's tensors. */
    int (*put)(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const struct qp_parts *parts, struct qp_err *err);
    /* Decodes such a layer from the file and compares it with want [rows, cols]: another value than wanted is QP_E_INTERNAL. Keeps the greatest difference. */
    int (*measure)(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const float *want, struct qp_err *err);
    /* A dense weight: values [rows, cols], NULL: as the model has it. Sets the slot's sum. */
    int (*put_dense)(struct qp_checkpoint *ck, struct qp_ck_slot *s, const float *values, struct qp_err *err);
    /* All dense weights that nothing was put for. */
    int (*put_rest)(struct qp_checkpoint *ck, struct qp_err *err);
    /* Opens what was written as a model and compares every weight with what was put. */
    int (*read_back)(const struct qp_checkpoint *ck, struct qp_err *err);
};
extern const struct qp_ck_kind qp_ck_folder, qp_ck_file;

struct qp_checkpoint {
    const struct qp_ck_kind *kind;
    struct qp_ck_gguf *gguf; /* what only that kind has */
    char *path, *part, *files_path; /* PATH, PATH.part, PATH.part/files */
    const struct qp_model *m;
    struct qp_checkpoint_options o;
    struct qp_ck_slot *slots; /* [n_slots], by name */
    size_t n_slots;
    struct qp_tensor *decl;   /* [n_decl], names owned */
    size_t n_decl;
    struct qp_ck_file *files;
    size_t n_files;
    struct qp_journal *journal;
    double max_diff;          /* between what was quantized and what the files hold */
    int64_t blocks;           /* ended */
    uint64_t stream_sum[2];   /* of their streams */
    size_t n_stream;          /* floats of each */
    int n_streams;
    struct qp_buf notes;      /* of an earlier run: size_t bytes, then they */
};

/* Slots of all weights, by name; nothing is said of them. */
int qp_ck_list_slots(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* NULL: no such weight. */
struct qp_ck_slot *qp_ck_find(const struct qp_checkpoint *ck, const char *weight);
/* Reading weights slice by slice: rows of w at a time. */
int64_t qp_ck_slice(const struct qp_weight *w);
int qp_ck_put(struct qp_checkpoint *ck, size_t tensor, size_t offset, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
int qp_ck_get(const struct qp_checkpoint *ck, size_t tensor, size_t offset, void *data, size_t bytes, struct qp_err *err) QP_MUST_USE; /* as it lies in the file */
int qp_ck_sync_files(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* Syncs and closes. */
int qp_ck_close_files(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* Slots, declarations, files. */
void qp_ck_release_files(struct qp_checkpoint *ck);
void qp_ck_release_gguf(struct qp_checkpoint *ck);
/* qp_checkpoint_check of a GGUF file. */
int qp_ck_outline_gguf(size_t *dense_bytes, const struct qp_model *m, const struct qp_checkpoint_options *o, struct qp_err *err) QP_MUST_USE;

/* Opens the journal and takes over what it says. *fresh: there is nothing to go on with. */
int qp_ck_resume(struct qp_checkpoint *ck, bool *fresh, struct qp_err *err) QP_MUST_USE;
/* The journal's first entries: whose run it is; and that the folder holds all that is known before the first block. */
int qp_ck_journal_setup(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
int qp_ck_journal_ready(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
int qp_ck_journal_slot(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const void *note, size_t note_bytes, struct qp_err *err) QP_MUST_USE;

/* The folder's measure and read_back; the greatest difference of all layers, of which only 0 is good; a weight's decoded values against the sum of its slot. */
int qp_ck_measure(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const float *want, struct qp_err *err) QP_MUST_USE;
double qp_ck_greatest_difference(const float *a, const float *b, int64_t n);
int qp_ck_keep_difference(struct qp_checkpoint *ck, const char *name, double difference, struct qp_err *err) QP_MUST_USE;
int qp_ck_read_back(const struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
int qp_ck_check_values(const struct qp_ck_slot *s, const struct qp_model *m, struct qp_err *err) QP_MUST_USE;

#endif
