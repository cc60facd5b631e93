/* chat_helper.c - see chat_helper.h. The templates are programs from untrusted folders, so the
 * helper gets an empty environment, limits on memory and time, no new privileges, dies with us, and
 * before it sees a template gives up all system calls but a few (chat_jail.h). */
#include "text/chat_helper.h"
#include "text/chat_jail.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    START_MS = 10000,
    RENDER_MS = 5000,
    ANSWER_MAX = 64 << 20,
    MEMORY = 512 << 20,
    CPU_S = 3600
};

/* The program, embedded by the assembler: see CMakeLists.txt for TANDEM_CHAT_SCRIPT. */
__asm__(".section .rodata\n"
        "chat_script: .incbin \"" TANDEM_CHAT_SCRIPT "\"\n"
        ".byte 0\n"
        ".previous\n");
extern const char chat_script[];

static const char *interpreter(void)
{
    const char *chosen = getenv("TANDEM_PYTHON");
    return chosen && *chosen ? chosen : "/usr/bin/python3";
}

static void limit(int what, rlim_t n)
{
    setrlimit((__rlimit_resource_t)what, &(struct rlimit){n, n});
}

static _Noreturn void become_helper(int fd, pid_t parent)
{
    char filter[JAIL_TEXT];
    char *const argv[] = {(char *)"python3",
                          (char *)"-I",
                          (char *)"-c",
                          (char *)(uintptr_t)chat_script,
                          filter,
                          NULL};
    char *const env[] = {(char *)"LC_ALL=C.UTF-8", NULL};
    int null = open("/dev/null", O_RDWR);
    jail_filter(filter);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (getppid() != parent)
        _exit(1);
    signal(SIGINT, SIG_IGN);
    dup2(null, 0);
    dup2(null, 1);
    dup2(null, 2);
    if (fd == 3)
        fcntl(3, F_SETFD, 0);
    else
        dup2(fd, 3);
    for (int i = 4; i < 256; i++)
        close(i);
    limit(RLIMIT_AS, MEMORY);
    limit(RLIMIT_CPU, CPU_S);
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NPROC, 0);
    execve(interpreter(), argv, env);
    _exit(127);
}

/* ------------------------------------------------------------------------------- framing */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Move n bytes before the deadline. */
static int transfer(int fd, bool out, char *at, size_t n, int64_t deadline)
{
    while (n) {
        struct pollfd p = {.fd = fd, .events = out ? POLLOUT : POLLIN};
        int64_t left = deadline - now_ms();
        if (left <= 0)
            return -ETIMEDOUT;
        if (poll(&p, 1, (int)left) < 0 && errno != EINTR)
            return -errno;
        ssize_t k =
            out ? send(fd, at, n, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(fd, at, n, MSG_DONTWAIT);
        if (k == 0 || (k < 0 && errno != EAGAIN && errno != EINTR))
            return -EPIPE;
        if (k > 0)
            at += k, n -= (size_t)k;
    }
    return 0;
}

static int receive(int fd, json_t **to, int64_t deadline)
{
    unsigned char size[4];
    int rc = transfer(fd, false, (char *)size, sizeof(size), deadline);
    size_t n =
        (size_t)size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16 | (size_t)size[3] << 24;
    if (rc || n > ANSWER_MAX)
        return rc ? rc : -EPROTO;
    char *text = malloc(n + 1);
    must(text);
    rc = transfer(fd, false, text, n, deadline);
    *to = rc ? NULL : json_loadb(text, n, JSON_ALLOW_NUL, NULL);
    free(text);
    return rc ? rc : *to ? 0 : -EPROTO;
}

static int send_json(int fd, const json_t *o, int64_t deadline)
{
    char *text = json_dumps(o, JSON_COMPACT);
    must(text);
    size_t n = strlen(text);
    unsigned char size[4] = {(unsigned char)n, (unsigned char)(n >> 8), (unsigned char)(n >> 16),
                             (unsigned char)(n >> 24)};
    int rc = transfer(fd, true, (char *)size, sizeof(size), deadline);
    if (!rc)
        rc = transfer(fd, true, text, n, deadline);
    free(text);
    return rc;
}

/* ------------------------------------------------------------------------------- life */

int helper_start(struct helper *h, struct err *e)
{
    int fd[2];
    pid_t parent = getpid();
    json_t *ready = NULL;
    if (h->pid > 0)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd))
        return err_set(e, -errno, "cannot make a socket: %s", strerror(errno));
    h->pid = fork();
    if (h->pid == 0)
        become_helper(fd[1], parent);
    close(fd[1]);
    h->fd = fd[0];
    int rc = h->pid < 0 ? -errno : receive(h->fd, &ready, now_ms() + START_MS);
    json_decref(ready);
    if (!rc)
        return 0;
    helper_stop(h);
    return err_set(e, -ENOENT,
                   "%s with Jinja2 is needed to render this model's chat template: apt-get install "
                   "python3-jinja2 (or use --raw)",
                   interpreter());
}

int helper_ask(struct helper *h, const json_t *request, json_t **answer, struct err *e)
{
    int64_t deadline = now_ms() + RENDER_MS;
    int rc = send_json(h->fd, request, deadline);
    if (!rc)
        rc = receive(h->fd, answer, deadline);
    if (!rc)
        return 0;
    helper_stop(h);
    if (rc == -ETIMEDOUT)
        return err_set(e, -EINVAL, "the chat template took longer than %d ms", RENDER_MS);
    return err_set(e, -EINVAL, "the chat template ended its renderer; is it meant to?");
}

void helper_stop(struct helper *h)
{
    if (h->pid > 0) {
        kill(h->pid, SIGKILL);
        while (waitpid(h->pid, NULL, 0) < 0 && errno == EINTR)
            ;
        close(h->fd);
    }
    *h = (struct helper){0};
}
