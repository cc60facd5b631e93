/* tls.h - connections under TLS 1.2 or 1.3, with a certificate and a key from files. */
#ifndef TANDEM_TLS_H
#define TANDEM_TLS_H

#include "base/base.h"

#include <event2/bufferevent.h>

struct tls;

/* PEM files: the certificate with its chain, and its private key; the paths must outlive it.
 * -EINVAL with a sentence. */
int tls_open(struct tls **to, const char *certificate, const char *key, struct err *e);
/* Read the files again, for connections from now on; on an error they stay as they were. */
int tls_reload(struct tls *t, struct err *e);
void tls_close(struct tls *t);

/* The server's side of a connection whose descriptor is set later; NULL: no memory. */
struct bufferevent *tls_stream(struct tls *t, struct event_base *base);

#endif
