/* An append-only file of entries that survives being cut off anywhere: each entry carries a checksum over itself and all before it, and what follows the
 * last whole entry is dropped when the file is opened again. One process at a time has it open.
 *
 *     qp_journal_open(&j, "x.part/journal", &err);
 *     while (qp_journal_next(j, &e))                   // what an earlier run has written
 *         if (e.kind == BLOCK) qp_journal_mark(j);
 *     qp_journal_rewind(j, &err);                      // entries behind the last mark are dropped
 *     qp_journal_add(j, LAYER, data, bytes, &err);
 *     qp_journal_sync(j, &err);
 */
#ifndef QP_QUANT_JOURNAL_H
#define QP_QUANT_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define QP_JOURNAL_MAX_ENTRY (1u << 20)

struct qp_journal;

struct qp_journal_entry {
    uint32_t kind;
    const uint8_t *data; /* valid until the journal is rewound or closed */
    size_t bytes;
};

/* Opens or creates. QP_E_RESOURCE: another process has it open; QP_E_INPUT: the file is no journal. */
int qp_journal_open(struct qp_journal **out, const char *path, struct qp_err *err) QP_MUST_USE;
void qp_journal_close(struct qp_journal *j); /* may be NULL */
bool qp_journal_next(struct qp_journal *j, struct qp_journal_entry *e);
void qp_journal_mark(struct qp_journal *j);
/* Cuts the file behind the last mark (none: to nothing); from here on entries are added. */
int qp_journal_rewind(struct qp_journal *j, struct qp_err *err) QP_MUST_USE;
int qp_journal_add(struct qp_journal *j, uint32_t kind, const void *data, size_t bytes, struct qp_err *err) QP_MUST_USE;
int qp_journal_sync(struct qp_journal *j, struct qp_err *err) QP_MUST_USE;

#endif
