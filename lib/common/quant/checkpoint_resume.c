/* The journal of an unfinished checkpoint: what it holds, and what is taken over from it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/spool.h"
#include "quant/checkpoint_internal.h"

#define SLICE ((size_t)1 << 22) /* values of a stream at a time */

enum { SETUP = 1, READY, SLOT, BLOCK };

struct slot_entry { /* then the note */
    uint64_t slot, sum;
};

struct block_entry {
    int64_t blocks;
    uint64_t n_streams, n, sum[2];
};

/* ---- writing ---- */

int qp_ck_journal_setup(struct qp_checkpoint *ck, struct qp_err *err)
{
    struct qp_buf b = QP_BUF_INIT;
    for (size_t i = 0; i < ck->o.n_setup; i++) {
        qp_buf_add(&b, ck->o.setup[i].name, strlen(ck->o.setup[i].name) + 1);
        qp_buf_add(&b, ck->o.setup[i].value, strlen(ck->o.setup[i].value) + 1);
    }
    int r = qp_buf_check(&b, err) ? QP_E_RESOURCE : qp_journal_add(ck->journal, SETUP, b.data, b.len, err);
    qp_buf_release(&b);
    return r ? r : qp_journal_sync(ck->journal, err);
}

int qp_ck_journal_ready(struct qp_checkpoint *ck, struct qp_err *err)
{
    int r = qp_ck_sync_files(ck, err);
    if (!r)
        qp_sync_folder_of(ck->files_path);
    r = r ? r : qp_journal_add(ck->journal, READY, NULL, 0, err);
    return r ? r : qp_journal_sync(ck->journal, err);
}

int qp_ck_journal_slot(struct qp_checkpoint *ck, const struct qp_ck_slot *s, const void *note, size_t note_bytes, struct qp_err *err)
{
    struct slot_entry e = {(uint64_t)(s - ck->slots), s->sum};
    struct qp_buf b = QP_BUF_INIT;
    qp_buf_add(&b, &e, sizeof e);
    qp_buf_add(&b, note, note_bytes);
    int r = qp_buf_check(&b, err) ? QP_E_RESOURCE : qp_journal_add(ck->journal, SLOT, b.data, b.len, err);
    qp_buf_release(&b);
    return r;
}

static char *state_path(const struct qp_checkpoint *ck, int64_t blocks, struct qp_err *err)
{
    return qp_path_join(ck->part, blocks % 2 ? "state-1" : "state-0", err);
}

/* By slices: each leaves the memory when it has been passed. */
static uint64_t stream_sum(const struct qp_checkpoint *ck, const float *x, size_t n, struct qp_xxh64 *sum)
{
    for (size_t i = 0; i < n; i += SLICE) {
        size_t bytes = (n - i < SLICE ? n - i : SLICE) * sizeof *x;
        qp_xxh64_add(sum, x + i, bytes);
        qp_spool_passed(ck->o.spool, x + i, bytes);
    }
    return qp_xxh64_value(sum);
}

static int sum_streams(const struct qp_checkpoint *ck, uint64_t *sums, const float *const *streams, int n_streams, size_t n, struct qp_err *err)
{
    for (int i = 0; i < n_streams; i++) {
        struct qp_xxh64 *sum = qp_xxh64_new();
        if (!sum)
            return qp_err_set(err, QP_E_RESOURCE, "no memory for a checksum");
        sums[i] = stream_sum(ck, streams[i], n, sum);
        qp_xxh64_free(sum);
    }
    return 0;
}

static int write_stream(const struct qp_checkpoint *ck, FILE *f, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i += SLICE) {
        size_t some = n - i < SLICE ? n - i : SLICE;
        if (fwrite(x + i, sizeof *x, some, f) != some)
            return -1;
        qp_spool_passed(ck->o.spool, x + i, some * sizeof *x);
    }
    return 0;
}

static int read_stream(const struct qp_checkpoint *ck, FILE *f, float *x, size_t n)
{
    for (size_t i = 0; i < n; i += SLICE) {
        size_t some = n - i < SLICE ? n - i : SLICE;
        if (fread(x + i, sizeof *x, some, f) != some)
            return -1;
        qp_spool_passed(ck->o.spool, x + i, some * sizeof *x);
    }
    return 0;
}

static int write_streams(const struct qp_checkpoint *ck, int64_t blocks, const float *const *streams, int n_streams, size_t n, struct qp_err *err)
{
    char *path = state_path(ck, blocks, err);
    FILE *f = path ? fopen(path, "wb") : NULL;
    int r = f ? 0 : path ? qp_err_errno(err, QP_E_RESOURCE, "cannot create '%s'", path) : QP_E_RESOURCE;
    for (int i = 0; i < n_streams && !r; i++)
        if (write_stream(ck, f, streams[i], n))
            r = qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", path);
    if (!r && (fflush(f) || fsync(fileno(f))))
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", path);
    if (f && fclose(f) && !r)
        r = qp_err_errno(err, QP_E_RESOURCE, "cannot write '%s'", path);
    if (!r)
        qp_sync_folder_of(path);
    qp_free(path);
    return r;
}

int qp_checkpoint_end_block(struct qp_checkpoint *ck, int64_t layer, const float *const *streams, int n_streams, size_t n, struct qp_err *err)
{
    struct block_entry e = {.blocks = layer + 1, .n_streams = (uint64_t)n_streams, .n = n};
    int r = sum_streams(ck, e.sum, streams, n_streams, n, err);
    r = !r && n_streams ? write_streams(ck, e.blocks, streams, n_streams, n, err) : r;
    r = r ? r : qp_ck_sync_files(ck, err);
    r = r ? r : qp_journal_add(ck->journal, BLOCK, &e, sizeof e, err);
    r = r ? r : qp_journal_sync(ck->journal, err);
    if (!r)
        ck->blocks = e.blocks;
    return r;
}

/* ---- taking over ---- */

static bool next_text(const struct qp_journal_entry *e, size_t *at, const char **text)
{
    const uint8_t *end = *at < e->bytes ? memchr(e->data + *at, 0, e->bytes - *at) : NULL;
    if (!end)
        return false;
    *text = (const char *)e->data + *at;
    *at = (size_t)(end - e->data) + 1;
    return true;
}

static void check_setup(const struct qp_checkpoint *ck, const struct qp_journal_entry *e, struct qp_err *err)
{
    size_t at = 0;
    for (size_t i = 0; i < ck->o.n_setup; i++) {
        const struct qp_setup *s = &ck->o.setup[i];
        const char *name, *value;
        if (!next_text(e, &at, &name) || !next_text(e, &at, &value) || strcmp(name, s->name)) {
            qp_err_set(err, QP_E_INPUT, "'%s' was begun by another version; remove it, or give another name", ck->part);
            return;
        }
        if (strcmp(value, s->value))
            qp_err_set(err, QP_E_INPUT, "'%s' is the unfinished work of a run with another %s (%s, now %s); remove it, or give another name", ck->part, name, value, s->value);
    }
}

static bool take_slot(struct qp_checkpoint *ck, const struct qp_journal_entry *e)
{
    struct slot_entry s;
    if (e->bytes < sizeof s)
        return false;
    memcpy(&s, e->data, sizeof s);
    if (s.slot >= ck->n_slots)
        return false;
    size_t n = e->bytes - sizeof s;
    ck->slots[s.slot].sum = s.sum;
    ck->slots[s.slot].done = true;
    if (n) {
        qp_buf_add(&ck->notes, &n, sizeof n);
        qp_buf_add(&ck->notes, e->data + sizeof s, n);
    }
    return true;
}

static bool take_block(struct qp_checkpoint *ck, const struct qp_journal_entry *e)
{
    struct block_entry b;
    if (e->bytes != sizeof b)
        return false;
    memcpy(&b, e->data, sizeof b);
    if (b.n_streams > 2 || b.blocks != ck->blocks + 1)
        return false;
    ck->blocks = b.blocks;
    ck->n_streams = (int)b.n_streams;
    ck->n_stream = b.n;
    memcpy(ck->stream_sum, b.sum, sizeof b.sum);
    return true;
}

/* What was added after the last block's end is forgotten: the block is done again. */
static void forget(struct qp_checkpoint *ck, const bool *kept, size_t notes)
{
    for (size_t i = 0; i < ck->n_slots; i++)
        ck->slots[i].done = kept[i];
    ck->notes.len = notes;
}

static int read_entries(struct qp_checkpoint *ck, bool *kept, bool *fresh, struct qp_err *err)
{
    struct qp_journal_entry e;
    struct qp_err other = {0};
    size_t notes = 0;
    bool fits = true;
    while (fits && qp_journal_next(ck->journal, &e)) {
        if (e.kind == SETUP)
            check_setup(ck, &e, &other); /* matters once there is something to lose */
        if (e.kind == SLOT)
            fits = take_slot(ck, &e);
        if (e.kind == BLOCK)
            fits = take_block(ck, &e);
        if (e.kind == READY && other.code)
            return qp_err_set(err, other.code, "%s", other.text);
        if (e.kind == READY)
            *fresh = false;
        if (fits && (e.kind == READY || e.kind == BLOCK)) {
            qp_journal_mark(ck->journal);
            for (size_t i = 0; i < ck->n_slots; i++)
                kept[i] = ck->slots[i].done;
            notes = ck->notes.len;
        }
    }
    forget(ck, kept, notes);
    return qp_buf_check(&ck->notes, err);
}

int qp_ck_resume(struct qp_checkpoint *ck, bool *fresh, struct qp_err *err)
{
    *fresh = true;
    char *path = qp_path_join(ck->part, "journal", err);
    bool *kept = qp_zalloc(ck->n_slots * sizeof *kept, "tensor list", err);
    int r = path && kept ? qp_journal_open(&ck->journal, path, err) : QP_E_RESOURCE;
    if (!r && !access(ck->files_path, F_OK)) /* else it was finished, or has not begun */
        r = read_entries(ck, kept, fresh, err);
    r = r ? r : qp_journal_rewind(ck->journal, err);
    qp_free(kept);
    qp_free(path);
    return r;
}

int64_t qp_checkpoint_blocks(const struct qp_checkpoint *ck)
{
    return ck->blocks;
}

int qp_checkpoint_load_streams(const struct qp_checkpoint *ck, float *const *streams, int n_streams, size_t n, struct qp_err *err)
{
    if (n_streams != ck->n_streams || n != ck->n_stream)
        return qp_err_set(err, QP_E_INTERNAL, "'%s' holds %d streams of %zu values, not %d of %zu", ck->part, ck->n_streams, ck->n_stream, n_streams, n);
    char *path = state_path(ck, ck->blocks, err);
    FILE *f = path ? fopen(path, "rb") : NULL;
    int r = f ? 0 : path ? qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", path) : QP_E_RESOURCE;
    uint64_t sums[2] = {0};
    for (int i = 0; i < n_streams && !r; i++)
        if (read_stream(ck, f, streams[i], n))
            r = qp_err_set(err, QP_E_INPUT, "'%s' is cut off; remove '%s' to begin again", path, ck->part);
    r = r ? r : sum_streams(ck, sums, (const float *const *)streams, n_streams, n, err);
    for (int i = 0; i < n_streams && !r; i++)
        if (sums[i] != ck->stream_sum[i])
            r = qp_err_set(err, QP_E_INPUT, "'%s' is damaged; remove '%s' to begin again", path, ck->part);
    if (f)
        fclose(f);
    qp_free(path);
    return r;
}

int qp_checkpoint_notes(const struct qp_checkpoint *ck, qp_note_fn *fn, void *ctx)
{
    for (size_t at = 0, n; at < ck->notes.len; at += sizeof n + n) {
        memcpy(&n, ck->notes.data + at, sizeof n);
        int r = fn(ctx, ck->notes.data + at + sizeof n, n);
        if (r)
            return r;
    }
    return 0;
}
