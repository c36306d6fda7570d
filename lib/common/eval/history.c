#include "eval/history.h"

#include <math.h>
#include <sqlite3.h>

#include "base/mem.h"
#include "base/table.h"

#define APPLICATION 0x71706768 /* "qpgh": how the file says what it is */
#define VERSION 1

struct qp_history {
    sqlite3 *db;
    char *path;
};

static const char schema[] = "CREATE TABLE verdicts (id INTEGER PRIMARY KEY, time TEXT NOT NULL, gate TEXT NOT NULL, gate_sha256 TEXT NOT NULL,"
                             " model TEXT NOT NULL, outcome TEXT NOT NULL, chain TEXT NOT NULL);"
                             "CREATE TABLE checks (verdict INTEGER NOT NULL REFERENCES verdicts(id), metric TEXT NOT NULL, limit_kind TEXT NOT NULL, \"limit\" REAL NOT NULL,"
                             " value REAL, stderr REAL, baseline REAL, measure REAL, low REAL, high REAL, outcome TEXT NOT NULL, reason TEXT NOT NULL);"
                             "CREATE INDEX checks_verdict ON checks (verdict);"
                             "PRAGMA application_id = 1903191912; PRAGMA user_version = 1;";
_Static_assert(APPLICATION == 1903191912 && VERSION == 1, "the schema says the same");

static int fail(const struct qp_history *h, struct qp_err *err)
{
    int code = sqlite3_errcode(h->db);
    bool input = code == SQLITE_NOTADB || code == SQLITE_CORRUPT || code == SQLITE_CANTOPEN;
    return qp_err_set(err, input ? QP_E_INPUT : QP_E_RESOURCE, "history '%s': %s", h->path, sqlite3_errmsg(h->db));
}

static int run(struct qp_history *h, const char *sql, struct qp_err *err)
{
    return sqlite3_exec(h->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(h, err);
}

/* A statement with its parameters: 's' text, 'i' int64_t, 'f' double (NaN is NULL). Texts are borrowed until it is finalized. */
static sqlite3_stmt *prepare(struct qp_history *h, struct qp_err *err, const char *sql, const char *kinds, ...)
{
    sqlite3_stmt *s = NULL;
    va_list args;
    int r = sqlite3_prepare_v2(h->db, sql, -1, &s, NULL);
    va_start(args, kinds);
    for (int i = 1; r == SQLITE_OK && kinds[i - 1]; i++)
        r = kinds[i - 1] == 's'   ? sqlite3_bind_text(s, i, va_arg(args, const char *), -1, SQLITE_STATIC)
            : kinds[i - 1] == 'i' ? sqlite3_bind_int64(s, i, va_arg(args, int64_t))
                                  : sqlite3_bind_double(s, i, va_arg(args, double));
    va_end(args);
    if (r == SQLITE_OK)
        return s;
    fail(h, err);
    sqlite3_finalize(s);
    return NULL;
}

/* Runs a statement that gives no rows. */
static int finish(struct qp_history *h, sqlite3_stmt *s, struct qp_err *err)
{
    if (!s)
        return err->code;
    int r = sqlite3_step(s) == SQLITE_DONE ? 0 : fail(h, err);
    sqlite3_finalize(s);
    return r;
}

static int read_number(struct qp_history *h, const char *sql, int64_t *out, struct qp_err *err)
{
    sqlite3_stmt *s = prepare(h, err, sql, "");
    if (!s)
        return err->code;
    int r = sqlite3_step(s) == SQLITE_ROW ? 0 : fail(h, err);
    *out = r ? 0 : sqlite3_column_int64(s, 0);
    sqlite3_finalize(s);
    return r;
}

/* Makes the tables of an empty file; else it must be a history. Within a transaction: another process may be doing the same. */
static int check_file(struct qp_history *h, bool create, struct qp_err *err)
{
    int64_t tables, application, version;
    if (read_number(h, "SELECT count(*) FROM sqlite_master", &tables, err) || read_number(h, "PRAGMA application_id", &application, err) ||
        read_number(h, "PRAGMA user_version", &version, err))
        return err->code;
    if (!tables && create)
        return run(h, schema, err);
    if (application != APPLICATION)
        return qp_err_set(err, QP_E_INPUT, "history '%s': an SQLite file, but not one of qgate --history", h->path);
    if (version != VERSION)
        return qp_err_set(err, QP_E_INPUT, "history '%s' is of version %lld, expected %d", h->path, (long long)version, VERSION);
    return 0;
}

int qp_history_open(struct qp_history **out, const char *path, bool create, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    *out = NULL;
    struct qp_history *h = qp_zalloc(sizeof *h, "history", err);
    if (!h || !(h->path = qp_strdup(path, err))) {
        qp_free(h);
        return QP_E_RESOURCE;
    }
    int r = sqlite3_open_v2(path, &h->db, create ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY, NULL) == SQLITE_OK ? 0 : fail(h, err);
    if (!r) {
        sqlite3_busy_timeout(h->db, 10000);
        r = create ? run(h, "BEGIN IMMEDIATE", err) : 0;
        r = r ? r : check_file(h, create, err);
        r = r || !create ? r : run(h, "COMMIT", err);
    }
    if (r) {
        qp_history_close(h);
        return r;
    }
    *out = h;
    return 0;
}

void qp_history_close(struct qp_history *h)
{
    if (!h)
        return;
    sqlite3_close(h->db); /* what was not committed is gone */
    qp_free(h->path);
    qp_free(h);
}

/* ---- writing ---- */

static int add_check(struct qp_history *h, int64_t verdict, const struct qp_judged *j, struct qp_err *err)
{
    sqlite3_stmt *s = prepare(h, err, "INSERT INTO checks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", "issfffffffss", verdict, j->metric, qp_limit_name(j->check->kind), j->check->limit,
                              j->value, j->stderr_, j->baseline, j->measure, j->lo, j->hi, qp_outcome_name(j->outcome), j->reason);
    return finish(h, s, err);
}

int qp_history_add(struct qp_history *h, const struct qp_history_about *about, const struct qp_verdict *v, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    int r = run(h, "BEGIN IMMEDIATE", err);
    if (r)
        return r;
    r = finish(h, prepare(h, err, "INSERT INTO verdicts VALUES (NULL, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), ?, ?, ?, ?, ?)", "sssss", about->gate, about->gate_sha256, about->model,
                          qp_outcome_name(v->outcome), about->chain), err);
    int64_t id = sqlite3_last_insert_rowid(h->db);
    for (size_t i = 0; i < v->n && !r; i++)
        r = add_check(h, id, &v->v[i], err);
    r = r ? r : run(h, "COMMIT", err);
    if (r)
        sqlite3_exec(h->db, "ROLLBACK", NULL, NULL, NULL);
    return r;
}

/* ---- reading ---- */

static double number(sqlite3_stmt *s, int column)
{
    return sqlite3_column_type(s, column) == SQLITE_NULL ? NAN : sqlite3_column_double(s, column);
}

static const char *text(sqlite3_stmt *s, int column)
{
    const char *t = (const char *)sqlite3_column_text(s, column);
    return t ? t : "";
}

int qp_history_last_pass(struct qp_history *h, const char *gate, const char *model, struct qp_results *out, struct qp_err *err)
{
    struct qp_err local = {0};
    err = err ? err : &local;
    /* of bare columns beside max(), SQLite takes the row that has the maximum */
    sqlite3_stmt *s = prepare(h, err, "SELECT metric, value, stderr, max(verdict) FROM checks JOIN verdicts ON verdict = id"
                                      " WHERE gate = ? AND model = ? AND verdicts.outcome = 'pass' AND value IS NOT NULL GROUP BY metric", "ss", gate, model);
    int step, r = s ? 0 : err->code;
    while (!r && (step = sqlite3_step(s)) != SQLITE_DONE)
        r = step == SQLITE_ROW ? qp_results_add(out, model, text(s, 0), number(s, 1), number(s, 2), err) : fail(h, err);
    sqlite3_finalize(s);
    return r;
}

static void number_cell(struct qp_table *t, double v)
{
    if (isnan(v))
        qp_table_cell(t, "%s", "");
    else
        qp_table_cell(t, "%.6g", v);
}

int qp_history_print(struct qp_history *h, int64_t n, struct qp_buf *out, struct qp_err *err)
{
    static const char *const names[] = {"verdict", "time", "gate", "model", "outcome", "metric", "value", "baseline", "limit", "", "check"};
    struct qp_err local = {0};
    struct qp_table t = {0};
    err = err ? err : &local;
    sqlite3_stmt *s = prepare(h, err, "SELECT id, time, gate, model, v.outcome, metric, value, baseline, limit_kind, \"limit\", c.outcome"
                                      " FROM (SELECT * FROM verdicts ORDER BY id DESC LIMIT ?) v LEFT JOIN checks c ON verdict = id ORDER BY id, c.rowid", "i", n);
    int step, r = s ? 0 : err->code;
    for (int i = 0; i < 11; i++)
        qp_table_column(&t, names[i], i == 0 || i == 6 || i == 7 || i == 9);
    while (!r && (step = sqlite3_step(s)) != SQLITE_DONE) {
        if (step != SQLITE_ROW) {
            r = fail(h, err);
            break;
        }
        for (int i = 0; i < 11; i++)
            if (i == 6 || i == 7 || i == 9)
                number_cell(&t, number(s, i));
            else
                qp_table_cell(&t, "%s", text(s, i));
    }
    sqlite3_finalize(s);
    if (!r)
        qp_table_print(&t, QP_TABLE_TEXT, out);
    qp_table_release(&t);
    return r ? r : qp_buf_check(out, err);
}
