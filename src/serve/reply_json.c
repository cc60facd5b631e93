/* reply_json.c - see reply_json.h. */
#include "serve/reply_json.h"
#include "base/buffer.h"

#include <math.h>

static char *room_for(struct out *o, size_t n)
{
    o->at = grow(o->at, &o->room, o->n + n, 1);
    return o->at + o->n;
}

void out_bytes(struct out *o, const char *s, size_t n)
{
    if (!n)
        return;
    memcpy(room_for(o, n), s, n);
    o->n += n;
}

void out_str(struct out *o, const char *s) { out_bytes(o, s, strlen(s)); }

void out_fmt(struct out *o, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    must(n >= 0);
    vsnprintf(room_for(o, (size_t)n + 1), (size_t)n + 1, fmt, again);
    va_end(again);
    o->n += (size_t)n;
}

void out_free(struct out *o)
{
    free(o->at);
    *o = (struct out){0};
}

/* Right after a bracket or a colon nothing separates. */
void out_item(struct out *o)
{
    if (o->n && !strchr("{[:", o->at[o->n - 1]))
        out_bytes(o, ",", 1);
}

void out_key(struct out *o, const char *key)
{
    out_item(o);
    out_bytes(o, "\"", 1);
    out_str(o, key);
    out_bytes(o, "\":", 2);
}

/* Length of the UTF-8 character at s, 0 when there is none (Unicode 15, table 3-7). */
static size_t character(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    size_t k = s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;
    if (!k || k > n)
        return 0;
    for (size_t i = 1; i < k; i++)
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
    bool outside = (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF4 && s[1] > 0x8F);
    return overlong || outside ? 0 : k;
}

bool out_is_text(const char *s, size_t n)
{
    for (size_t i = 0, k; i < n; i += k)
        if (!(k = character((const unsigned char *)s + i, n - i)))
            return false;
    return true;
}

static void escaped(struct out *o, unsigned char c)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
    const char *at = strchr(from, c);
    if (c && at)
        out_bytes(o, (char[]){'\\', to[at - from]}, 2);
    else
        out_fmt(o, "\\u%04x", c);
}

void out_text(struct out *o, const char *s, size_t n)
{
    out_bytes(o, "\"", 1);
    for (size_t i = 0; i < n;) {
        const unsigned char *c = (const unsigned char *)s + i;
        size_t plain = 0;
        while (i + plain < n && c[plain] >= ' ' && c[plain] < 0x7F && c[plain] != '"' &&
               c[plain] != '\\')
            plain++;
        out_bytes(o, s + i, plain);
        i += plain;
        if (i == n)
            break;
        size_t k = character((const unsigned char *)s + i, n - i);
        if (k > 1)
            out_bytes(o, s + i, k);
        else if (k)
            escaped(o, (unsigned char)s[i]);
        else
            out_str(o, "\xEF\xBF\xBD");
        i += k ? k : 1;
    }
    out_bytes(o, "\"", 1);
}

void out_string(struct out *o, const char *s)
{
    if (s)
        out_text(o, s, strlen(s));
    else
        out_str(o, "null");
}

void out_int(struct out *o, long long v) { out_fmt(o, "%lld", v); }

void out_real(struct out *o, double v)
{
    if (isfinite(v))
        out_fmt(o, "%.9g", v);
    else
        out_str(o, isinf(v) && v < 0 ? "-9999.0" : "null");
}
