/* The stream reader over any bytes: framing, decoding, getters, JSON. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "stream/report.h"
#include "stream/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct qp_reader *rd;
    struct qp_report *rep;
    struct qp_record rec;
    struct qp_err err = {0};
    struct qp_buf out = QP_BUF_INIT;
    int fd = memfd_create("fuzz", 0);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n || lseek(fd, 0, SEEK_SET) || qp_reader_new(&rd, fd, "fuzz", &err))
        abort();
    if (qp_report_new(&rep, &err))
        abort();
    while (qp_reader_next(rd, &rec, &err) == 1) {
        qp_buf_clear(&out);
        qp_record_json(&rec, 16, &out);
        if (qp_report_record(rep, &rec, &err))
            break;
    }
    qp_report_print(rep, QP_TABLE_MARKDOWN, &out);
    qp_report_free(rep);
    qp_reader_free(rd);
    qp_buf_release(&out);
    close(fd);
    return 0;
}
