/* chat_builtin.h - well-known chat templates in C, for machines without Python. Private to text/.
 */
#ifndef TANDEM_CHAT_BUILTIN_H
#define TANDEM_CHAT_BUILTIN_H

#include "base/base.h"

#include <jansson.h>

/* The renderer that stands for this template, or NULL when it is not known. */
const char *builtin_name(const char *template_text);

/* Render a request as that template would; what the renderer cannot do (tools) is refused. *text
 * is malloc'd. */
int builtin_render(const char *template_text, const json_t *request, const char *bos,
                   const char *eos, char **text, struct err *e);

#endif
