/* chat.h - messages to prompt text.
 *
 * Hugging Face chat templates are Jinja2 programs from untrusted model folders: a helper process
 * (system Python with Jinja2, sandboxed) renders them. Where Python is absent, well-known
 * templates are recognised and rendered by built-in C renderers.
 */
#ifndef TANDEM_CHAT_H
#define TANDEM_CHAT_H

#include "base/base.h"

struct chat;

/* Read the template of a model folder: chat_template.jinja, chat_template.json or the
 * chat_template field of tokenizer_config.json (a string, or a list of named ones: "default"; and
 * "tool_use" when tools are given). bos_token and eos_token come from tokenizer_config.json /
 * special_tokens_map.json. -ENOENT when the folder has no template. The helper process starts at
 * the first render. */
int chat_load(const char *folder, struct chat **out, struct err *e);
/* The same from a template text. */
int chat_new(const char *template_text, const char *bos, const char *eos, struct chat **out,
             struct err *e);
void chat_free(struct chat *c); /* ends and reaps the helper */

/* Who will render: "jinja2" or the name of a built-in renderer ("chatml", "llama3", ...); NULL
 * when neither is possible, with e saying why and what to install. */
const char *chat_renderer(struct chat *c, struct err *e);

/* The text of the template: the one for requests with tools, or the default one. Valid while c
 * lives. */
const char *chat_template(const struct chat *c, bool tools);

/* Render. `request` is a JSON object text: {"messages": [...], "tools": [...]?,
 * "add_generation_prompt": bool, ...any further template variable}. *text is malloc'd, the caller
 * frees it. A template that raises, takes too long or too much memory gives -EINVAL and its own
 * message; the helper is restarted after a time-out or crash. */
int chat_render(struct chat *c, const char *request, char **text, struct err *e);

#endif
