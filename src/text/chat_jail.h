/* chat_jail.h - the system calls that the template helper keeps. Private to text/. */
#ifndef TANDEM_CHAT_JAIL_H
#define TANDEM_CHAT_JAIL_H

#include <stddef.h>

enum { JAIL_TEXT = 2048 };

/* A seccomp filter (struct sock_filter[], classic BPF) as hexadecimal text: what a running
 * interpreter needs to compute, to get memory and to use descriptors that are open; everything
 * else, opening a file first of all, fails with EPERM. "" for a processor whose numbers of system
 * calls are not known here. */
void jail_filter(char to[JAIL_TEXT]);

#endif
