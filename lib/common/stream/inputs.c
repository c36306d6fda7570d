#include "stream/inputs.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int read_one(int fd, const char *name, qp_record_fn *fn, void *ctx, struct qp_err *err)
{
    struct qp_reader *rd;
    struct qp_record rec;
    int r = qp_reader_new(&rd, fd, name, err);
    while (!r && (r = qp_reader_next(rd, &rec, err)) == 1)
        r = fn(ctx, &rec, err);
    qp_reader_free(rd);
    return r < 0 ? r : 0;
}

int qp_inputs_read(const struct qp_strs *files, const char *tool, qp_record_fn *fn, void *ctx, struct qp_err *err)
{
    if (!files->n) {
        if (isatty(STDIN_FILENO))
            return qp_err_set(err, QP_E_USAGE, "standard input is a terminal; expected a stream (qcalib ... | %s) or FILEs; see --help", tool);
        return read_one(STDIN_FILENO, "standard input", fn, ctx, err);
    }
    for (int i = 0; i < files->n; i++) {
        if (!strcmp(files->v[i], "-")) {
            int piped = read_one(STDIN_FILENO, "standard input", fn, ctx, err);
            if (piped)
                return piped;
            continue;
        }
        int fd = open(files->v[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return qp_err_errno(err, QP_E_INPUT, "cannot open '%s'", files->v[i]);
        int r = read_one(fd, files->v[i], fn, ctx, err);
        close(fd);
        if (r)
            return r;
    }
    return 0;
}
