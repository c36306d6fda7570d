/* A forked child that answers its parent over a pair of pipes: work whose memory, and whose death, are its own. It inherits what the parent has in memory,
 * so fork before threads are started: only the calling thread lives on in the child.
 *
 *     static void serve(void *ctx, int from, int to) { ... qp_message_receive(from, ...) ... qp_message_send(to, ...) ... }
 *     qp_child_start(&c, serve, ctx, &err);
 *     qp_message_send(c.to, RUN, NULL, 0);
 *     if (qp_message_receive(c.from, &kind, &buf, interrupted, &err) == 0) ... it has died: qp_child_end says how
 *     qp_child_end(&c, how, sizeof how);
 */
#ifndef QP_BASE_CHILD_H
#define QP_BASE_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/err.h"

struct qp_child {
    pid_t pid; /* 0: none */
    int to, from;
};

/* Forks. The child has standard error and the two pipes open, ignores SIGINT (its parent ends it), dies with its parent, is the first that the system kills
 * when memory is short, and ends when serve returns; nothing that the parent registered for its exit runs. */
typedef void qp_child_fn(void *ctx, int from, int to);
int qp_child_start(struct qp_child *c, qp_child_fn *serve, void *ctx, struct qp_err *err) QP_MUST_USE;

enum qp_child_end { QP_CHILD_DONE, QP_CHILD_KILLED /* by SIGKILL, as the system does when memory is short */, QP_CHILD_DIED };
/* Closes the pipes, which asks the child to end; kills it first where kill is set. Waits. how: what a person may read ("was ended by signal 9"). */
enum qp_child_end qp_child_end(struct qp_child *c, bool kill, char *how, size_t n);

/* Messages: a kind and some bytes. False when the other side has gone. */
bool qp_message_send(int fd, uint32_t kind, const void *data, size_t bytes);
/* Waits for a message; payload replaces buf's contents. 1 message, 0 the other side has gone, -1 stop() has become true (asked whenever a signal comes;
 * NULL: never). A payload of more than 64 MiB counts as gone. */
int qp_message_receive(int fd, uint32_t *kind, struct qp_buf *buf, bool (*stop)(void));

#endif
