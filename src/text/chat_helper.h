/* chat_helper.h - the process that renders Jinja2 templates. Private to text/. */
#ifndef TANDEM_CHAT_HELPER_H
#define TANDEM_CHAT_HELPER_H

#include "base/base.h"

#include <jansson.h>
#include <sys/types.h>

/* Zero-initialised: not running. */
struct helper {
    pid_t pid;
    int fd;
};

/* Start the interpreter (TANDEM_PYTHON, else /usr/bin/python3) and wait until it is ready.
 * -ENOENT when there is no interpreter or it lacks Jinja2, with what to install in e. */
int helper_start(struct helper *h, struct err *e);

/* One request, one answer (a new reference). A helper that takes longer than the deadline, breaks
 * the protocol or dies is ended: h is then as before helper_start(). */
int helper_ask(struct helper *h, const json_t *request, json_t **answer, struct err *e);

void helper_stop(struct helper *h); /* ends and reaps it; fine when it is not running */

#endif
