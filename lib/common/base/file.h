/* Files: read-only mappings, whole-file reads with a bound, and writes that appear under their final name complete or not at all. */
#ifndef QP_BASE_FILE_H
#define QP_BASE_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"

struct qp_map {
    const uint8_t *data; /* NULL for an empty file */
    size_t bytes;
};
int qp_map_open(struct qp_map *out, const char *path, struct qp_err *err) QP_MUST_USE;
void qp_map_close(struct qp_map *map);
/* Pages that were read leave this process's memory; reading them again brings them back. */
void qp_map_drop(const struct qp_map *map);

/* Whole file into buf (appended, zero-terminated); QP_E_INPUT when it is longer than max bytes. */
int qp_file_read(struct qp_buf *buf, const char *path, size_t max, struct qp_err *err) QP_MUST_USE;

/* Atomic write: open makes `path.tmp-PID` beside path, commit flushes, fsyncs, renames and fsyncs the folder;
 * abort removes the temporary. Write with fwrite on ->file; commit reports any earlier write error. */
struct qp_outfile {
    FILE *file;
    char *path, *tmp;
};
int qp_outfile_open(struct qp_outfile *out, const char *path, struct qp_err *err) QP_MUST_USE;
int qp_outfile_commit(struct qp_outfile *out, struct qp_err *err) QP_MUST_USE;
void qp_outfile_abort(struct qp_outfile *out);
/* After a rename to path: the folder's entry is on the disk, where the file system can say so. */
void qp_sync_folder_of(const char *path);

/* "dir/name" in a new string; free with qp_free. */
char *qp_path_join(const char *dir, const char *name, struct qp_err *err) QP_MUST_USE;
/* The folder that path lies in: "a/b" gives "a", "b" gives "."; free with qp_free. */
char *qp_path_parent(const char *path, struct qp_err *err);
/* Absolute path without symbolic links; free with qp_free. */
char *qp_path_real(const char *path, struct qp_err *err) QP_MUST_USE;

#endif
