/* chat_jail.c - see chat_jail.h. The helper installs the filter itself, once its modules are
 * loaded and before it sees a template. */
#include "text/chat_jail.h"
#include "base/base.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

#ifdef ARCH

static const int allowed[] = {
    SYS_read,        SYS_write,         SYS_close,        SYS_fstat,           SYS_lseek,
    SYS_mmap,        SYS_munmap,        SYS_mremap,       SYS_mprotect,        SYS_madvise,
    SYS_brk,         SYS_futex,         SYS_rt_sigaction, SYS_rt_sigprocmask,  SYS_rt_sigreturn,
    SYS_sigaltstack, SYS_clock_gettime, SYS_gettimeofday, SYS_getrandom,       SYS_getpid,
    SYS_sched_yield, SYS_exit,          SYS_exit_group,   SYS_restart_syscall,
};

void jail_filter(char to[JAIL_TEXT])
{
    enum { HEAD = 4, N = HEAD + 2 * COUNT(allowed) + 1 };
    struct sock_filter f[N] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    for (size_t i = 0; i < COUNT(allowed); i++) {
        f[HEAD + 2 * i] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
        f[HEAD + 2 * i + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    f[N - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    const unsigned char *byte = (const unsigned char *)f;
    _Static_assert(2 * sizeof(f) < JAIL_TEXT, "the filter fits its text");
    for (size_t i = 0; i < sizeof(f); i++)
        sprintf(to + 2 * i, "%02x", byte[i]);
}

#else

void jail_filter(char to[JAIL_TEXT]) { to[0] = 0; }

#endif
