/* tls.c - see tls.h. OpenSSL through libevent. */
#include "serve/tls.h"

#include <event2/bufferevent_ssl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

struct tls {
    SSL_CTX *context;
    const char *certificate, *key;
};

static int refused(struct err *e, const char *what, const char *path)
{
    unsigned long code =
        ERR_get_error(); /* the first one; those of the system have no words here */
    const char *why =
        ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
    ERR_clear_error();
    return err_set(e, -EINVAL, "%s %.200s: %s", what, path, why ? why : "not as it should be");
}

static int load(SSL_CTX *to, const char *certificate, const char *key, struct err *e)
{
    SSL_CTX_set_min_proto_version(to, TLS1_2_VERSION);
    SSL_CTX_set_options(to, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(to, SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_use_certificate_chain_file(to, certificate) != 1)
        return refused(e, "--tls-cert", certificate);
    if (SSL_CTX_use_PrivateKey_file(to, key, SSL_FILETYPE_PEM) != 1)
        return refused(e, "--tls-key", key);
    if (SSL_CTX_check_private_key(to) != 1)
        return refused(e, "--tls-key does not belong to --tls-cert:", key);
    return 0;
}

int tls_reload(struct tls *t, struct err *e)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    must(context);
    int rc = load(context, t->certificate, t->key, e);
    if (rc) {
        SSL_CTX_free(context);
        return rc;
    }
    SSL_CTX_free(t->context); /* connections hold on to it */
    t->context = context;
    return 0;
}

int tls_open(struct tls **to, const char *certificate, const char *key, struct err *e)
{
    struct tls *t = calloc(1, sizeof(*t));
    must(t);
    t->certificate = certificate;
    t->key = key;
    int rc = tls_reload(t, e);
    if (rc)
        tls_close(t);
    *to = rc ? NULL : t;
    return rc;
}

void tls_close(struct tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->context);
    free(t);
}

struct bufferevent *tls_stream(struct tls *t, struct event_base *base)
{
    SSL *ssl = SSL_new(t->context);
    struct bufferevent *stream =
        ssl ? bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                             BEV_OPT_CLOSE_ON_FREE)
            : NULL;
    if (ssl && !stream)
        SSL_free(ssl);
    return stream;
}
