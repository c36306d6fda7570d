/* What checkpoint.c, checkpoint_files.c (weight files), checkpoint_resume.c (the journal) and checkpoint_check.c share. Private to quant/. */
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
    uint64_t sum;         /* once done: XXH64 of the decoded values, or of the float16 ones */
};

struct qp_ck_file {
    char *name;
    struct qp_st_image *image;
    size_t first, n; /* its tensors */
};

struct qp_checkpoint {
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

/* Fills slots and decl: the quantized layers in the order of the forward pass, then what stays dense. */
int qp_ck_declare(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* NULL: no such weight. */
struct qp_ck_slot *qp_ck_find(const struct qp_checkpoint *ck, const char *weight);
/* fresh: makes the files; else goes on with those that are there. */
int qp_ck_open_files(struct qp_checkpoint *ck, bool fresh, struct qp_err *err) QP_MUST_USE;
int qp_ck_put(struct qp_checkpoint *ck, size_t tensor, size_t offset, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
int qp_ck_get(const struct qp_checkpoint *ck, size_t tensor, void *data, struct qp_err *err) QP_MUST_USE; /* all of it, as it lies in the file */
/* A dense weight in float16: values [rows, cols], NULL: as the model has it. Sets the slot's sum. */
int qp_ck_write_dense(struct qp_checkpoint *ck, struct qp_ck_slot *s, const float *values, struct qp_err *err) QP_MUST_USE;
int qp_ck_sync_files(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* Syncs and closes. */
int qp_ck_close_files(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
/* Slots, declarations, files. */
void qp_ck_release_files(struct qp_checkpoint *ck);

/* Opens the journal and takes over what it says. *fresh: there is nothing to go on with. */
int qp_ck_resume(struct qp_checkpoint *ck, bool *fresh, struct qp_err *err) QP_MUST_USE;
/* The journal's first entries: whose run it is; and that the folder holds all that is known before the first block. */
int qp_ck_journal_setup(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
int qp_ck_journal_ready(struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;
int qp_ck_journal_slot(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const void *note, size_t note_bytes, struct qp_err *err) QP_MUST_USE;

/* Decodes a layer that was put from the file and compares it with want [rows, cols]: another value than wanted is QP_E_INTERNAL. Keeps the greatest difference. */
int qp_ck_measure(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const float *want, struct qp_err *err) QP_MUST_USE;
/* Opens the folder as a model and compares every weight with what was put. */
int qp_ck_read_back(const struct qp_checkpoint *ck, struct qp_err *err) QP_MUST_USE;

#endif
