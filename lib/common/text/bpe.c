/* Byte-pair merges: of all neighbouring pairs the one with the best rank is merged, leftmost first. Short words scan, long ones use a heap. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/internal.h"

struct symbol {
    int32_t id;             /* -1: no token (an unknown character of a vocabulary with scores) */
    int32_t prev, next;     /* -1: none */
    uint32_t start, n;
};

struct candidate {
    double rank;
    int32_t left, right, id;
    uint32_t n; /* bytes of both, to notice stale entries */
};

static int room(void **p, size_t *cap, size_t want, size_t size, struct qp_err *err)
{
    if (want <= *cap)
        return 0;
    size_t n = want + want / 2;
    void *grown = realloc(*p, n * size);
    if (!grown)
        return qp_err_set(err, QP_E_RESOURCE, "no memory to tokenize");
    *p = grown;
    *cap = n;
    return 0;
}

/* Rank of merging a and b, the merged id in *id; negative: they do not merge. Lower is sooner. */
static bool pair_rank(const struct qp_tokenizer *t, const char *text, const struct symbol *a, const struct symbol *b, double *rank, int32_t *id)
{
    if (t->by_score) {
        *id = qp_tok_find(t, text + a->start, a->n + b->n);
        if (*id < 0 || t->tokens[*id].type != 1) /* control and byte tokens are never made of text */
            return false;
        *rank = -(double)t->tokens[*id].score;
        return true;
    }
    if (a->id < 0 || b->id < 0)
        return false;
    int64_t pair = (int64_t)a->id << 32 | (uint32_t)b->id;
    for (size_t i = ((uint64_t)pair * 0x9e3779b97f4a7c15u >> 20) & t->merge_mask;; i = (i + 1) & t->merge_mask) {
        const struct qp_merge_slot *s = &t->merges[i];
        if (s->pair == pair) {
            *rank = s->rank;
            *id = s->id;
            return true;
        }
        if (s->pair == -1)
            return false;
    }
}

static bool before(const struct candidate *a, const struct candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->left < b->left);
}

static void sift_up(struct candidate *h, size_t i)
{
    while (i && before(&h[i], &h[(i - 1) / 2])) {
        struct candidate c = h[i];
        h[i] = h[(i - 1) / 2];
        h[(i - 1) / 2] = c;
        i = (i - 1) / 2;
    }
}

static void pop(struct candidate *h, size_t *n)
{
    h[0] = h[--*n];
    for (size_t i = 0;;) {
        size_t c = 2 * i + 1;
        if (c >= *n)
            return;
        if (c + 1 < *n && before(&h[c + 1], &h[c]))
            c++;
        if (!before(&h[c], &h[i]))
            return;
        struct candidate x = h[i];
        h[i] = h[c];
        h[c] = x;
        i = c;
    }
}

static int push(const struct qp_tokenizer *t, struct qp_bpe_work *w, size_t *n, const char *text, int32_t left, int32_t right, struct qp_err *err)
{
    const struct symbol *s = w->symbols;
    struct candidate c = {.left = left, .right = right};
    if (left < 0 || right < 0 || !pair_rank(t, text, &s[left], &s[right], &c.rank, &c.id))
        return 0;
    if (room(&w->heap, &w->heap_cap, *n + 1, sizeof c, err))
        return err->code;
    c.n = s[left].n + s[right].n;
    ((struct candidate *)w->heap)[*n] = c;
    sift_up(w->heap, (*n)++);
    return 0;
}

static void join(struct symbol *s, int32_t left, int32_t id)
{
    int32_t right = s[left].next;
    s[left].id = id;
    s[left].n += s[right].n;
    s[left].next = s[right].next;
    if (s[right].next >= 0)
        s[s[right].next].prev = left;
    s[right].n = 0;
}

static int merge_heap(const struct qp_tokenizer *t, struct qp_bpe_work *w, const char *text, int32_t count, struct qp_err *err)
{
    struct symbol *s = w->symbols;
    size_t n = 0;
    for (int32_t i = 0; i + 1 < count; i++)
        if (push(t, w, &n, text, i, i + 1, err))
            return err->code;
    while (n) {
        struct candidate c = ((struct candidate *)w->heap)[0];
        pop(w->heap, &n);
        if (!s[c.left].n || !s[c.right].n || s[c.left].next != c.right || s[c.left].n + s[c.right].n != c.n)
            continue;
        join(s, c.left, c.id);
        if (push(t, w, &n, text, s[c.left].prev, c.left, err) || push(t, w, &n, text, c.left, s[c.left].next, err))
            return err->code;
    }
    return 0;
}

static void merge_scan(const struct qp_tokenizer *t, struct symbol *s, const char *text)
{
    for (;;) {
        double best = 0, rank;
        int32_t at = -1, id, best_id = 0;
        for (int32_t i = 0; s[i].next >= 0; i = s[i].next)
            if (pair_rank(t, text, &s[i], &s[s[i].next], &rank, &id) && (at < 0 || rank < best)) {
                at = i;
                best = rank;
                best_id = id;
            }
        if (at < 0)
            return;
        join(s, at, best_id);
    }
}

static bool all_bytes(const struct qp_tokenizer *t, const char *p, int n)
{
    for (int i = 0; i < n; i++)
        if (t->byte_ids[(uint8_t)p[i]] < 0)
            return false;
    return true;
}

/* Symbols of the word before any merge: its bytes, or its characters with unknown ones in bytes. */
static int32_t split_symbols(const struct qp_tokenizer *t, struct symbol *s, const char *text, size_t n)
{
    int32_t count = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        int len = t->byte_level ? 1 : qp_utf8_next(text + i, &c);
        int32_t id = t->byte_level ? t->byte_ids[(uint8_t)text[i]] : qp_tok_find(t, text + i, (size_t)len);
        if (id < 0 && t->byte_fallback && !t->by_score && all_bytes(t, text + i, len)) {
            for (int b = 0; b < len; b++, count++)
                s[count] = (struct symbol){.id = t->byte_ids[(uint8_t)text[i + (size_t)b]], .prev = count - 1, .next = count + 1, .start = (uint32_t)(i + (size_t)b), .n = 1};
        } else {
            s[count] = (struct symbol){.id = id, .prev = count - 1, .next = count + 1, .start = (uint32_t)i, .n = (uint32_t)len};
            count++;
        }
        i += (size_t)len;
    }
    if (count)
        s[count - 1].next = -1;
    return count;
}

static int emit(const struct qp_tokenizer *t, const char *text, const struct symbol *s, struct qp_ids *out, struct qp_err *err)
{
    bool was_unk = false;
    for (int32_t i = 0; i >= 0; i = s[i].next) {
        if (s[i].id >= 0) {
            if (qp_ids_add(out, s[i].id, err))
                return err->code;
            was_unk = false;
            continue;
        }
        if (t->byte_fallback && all_bytes(t, text + s[i].start, (int)s[i].n)) {
            for (uint32_t b = 0; b < s[i].n; b++)
                if (qp_ids_add(out, t->byte_ids[(uint8_t)text[s[i].start + b]], err))
                    return err->code;
            was_unk = false;
            continue;
        }
        if (t->unk >= 0 && !(was_unk && t->fuse_unk) && qp_ids_add(out, t->unk, err))
            return err->code;
        was_unk = true;
    }
    return 0;
}

int qp_tok_bpe(const struct qp_tokenizer *t, struct qp_bpe_work *work, const char *text, size_t n, struct qp_ids *out, struct qp_err *err)
{
    if (!n)
        return 0;
    if (t->ignore_merges) {
        int32_t id = qp_tok_find(t, text, n);
        if (id >= 0)
            return qp_ids_add(out, id, err);
    }
    if (n > INT32_MAX / 2)
        return qp_err_set(err, QP_E_INPUT, "a text of %zu bytes is too long to tokenize at once", n);
    if (room(&work->symbols, &work->symbols_cap, n + 1, sizeof(struct symbol), err))
        return err->code;
    int32_t count = split_symbols(t, work->symbols, text, n);
    if (count > 24) {
        if (merge_heap(t, work, text, count, err))
            return err->code;
    } else
        merge_scan(t, work->symbols, text);
    return emit(t, text, work->symbols, out, err);
}
