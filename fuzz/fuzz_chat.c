/* fuzz_chat.c - any bytes as a chat template and, after a 0 byte, a request for its built-in
 * renderer. */
#include "text/chat_builtin.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const uint8_t *cut = n ? memchr(bytes, 0, n) : NULL;
    const char *template_text = (const char *)bytes;
    struct err e;
    char *text;
    if (!cut || !builtin_name(template_text))
        return 0;
    json_t *request =
        json_loadb((const char *)cut + 1, n - (size_t)(cut + 1 - bytes), JSON_ALLOW_NUL, NULL);
    if (request)
        builtin_render(template_text, request, "<s>", "</s>", &text, &e);
    if (request && text)
        free(text);
    json_decref(request);
    return 0;
}
