#include "base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_PAYLOAD ((size_t)64 << 20)

/* The kernel may only be told to kill this process rather than another, which needs no right. */
static void volunteer_for_oom(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (write(fd, "1000", 4) != 4)
        errno = 0; /* then the kernel decides */
    close(fd);
}

static void become_child(qp_child_fn *serve, void *ctx, int from, int to, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) /* it died before */
        _exit(0);
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    volunteer_for_oom();
    for (int fd = 0; fd < 1024; fd++) /* pipes of other children would outlive their parent's end; the stream is the parent's */
        if (fd != STDERR_FILENO && fd != from && fd != to)
            close(fd);
    if (open("/dev/null", O_RDONLY) == STDIN_FILENO && open("/dev/null", O_WRONLY) != STDOUT_FILENO)
        _exit(1);
    serve(ctx, from, to);
    _exit(0);
}

int qp_child_start(struct qp_child *c, qp_child_fn *serve, void *ctx, struct qp_err *err)
{
    int down[2], up[2];
    *c = (struct qp_child){0};
    if (pipe2(down, O_CLOEXEC))
        return qp_err_errno(err, QP_E_RESOURCE, "cannot make a pipe");
    if (pipe2(up, O_CLOEXEC)) {
        close(down[0]), close(down[1]);
        return qp_err_errno(err, QP_E_RESOURCE, "cannot make a pipe");
    }
    pid_t parent = getpid(), pid = fork();
    if (!pid)
        become_child(serve, ctx, down[0], up[1], parent);
    close(down[0]);
    close(up[1]);
    if (pid < 0) {
        close(down[1]), close(up[0]);
        return qp_err_errno(err, QP_E_RESOURCE, "cannot start a process");
    }
    *c = (struct qp_child){pid, down[1], up[0]};
    return 0;
}

enum qp_child_end qp_child_end(struct qp_child *c, bool kill_it, char *how, size_t n)
{
    int status = 0;
    if (!c->pid)
        return QP_CHILD_DONE;
    close(c->to);
    close(c->from);
    if (kill_it)
        kill(c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    *c = (struct qp_child){0};
    if (WIFSIGNALED(status)) {
        snprintf(how, n, "was ended by signal %d", WTERMSIG(status));
        return WTERMSIG(status) == SIGKILL ? QP_CHILD_KILLED : QP_CHILD_DIED;
    }
    snprintf(how, n, "ended with status %d", WEXITSTATUS(status));
    return WEXITSTATUS(status) ? QP_CHILD_DIED : QP_CHILD_DONE;
}

static bool send_all(int fd, const void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(fd, (const char *)data + at, bytes - at);
        if (n < 0 && errno != EINTR)
            return false;
        at += n > 0 ? (size_t)n : 0;
    }
    return true;
}

bool qp_message_send(int fd, uint32_t kind, const void *data, size_t bytes)
{
    uint64_t head[2] = {kind, bytes};
    return send_all(fd, head, sizeof head) && send_all(fd, data, bytes);
}

/* 1, 0 at the end or after an error, -1 stopped. poll is not restarted after a signal, as read is; its timeout closes the gap between stop() and it. */
static int receive_all(int fd, void *data, size_t bytes, bool (*stop)(void))
{
    for (size_t at = 0; at < bytes;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (stop && stop())
            return -1;
        if (poll(&p, 1, 250) < 0) {
            if (errno != EINTR)
                return 0;
            continue;
        }
        ssize_t n = read(fd, (char *)data + at, bytes - at);
        if (n == 0 || (n < 0 && errno != EINTR))
            return 0;
        at += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

int qp_message_receive(int fd, uint32_t *kind, struct qp_buf *buf, bool (*stop)(void))
{
    uint64_t head[2];
    int r = receive_all(fd, head, sizeof head, stop);
    if (r != 1)
        return r;
    qp_buf_clear(buf);
    void *to = head[1] <= MAX_PAYLOAD ? qp_buf_grow(buf, (size_t)head[1]) : NULL;
    if (!to && head[1])
        return 0;
    *kind = (uint32_t)head[0];
    return head[1] ? receive_all(fd, to, (size_t)head[1], stop) : 1;
}
