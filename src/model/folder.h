/* folder.h - a Hugging Face model folder: config.json and generation_config.json as data. */
#ifndef TANDEM_FOLDER_H
#define TANDEM_FOLDER_H

#include "model/model.h"

/* The defaults of a model for generating text. eos: all ids that end an answer. */
struct generation {
    int n_eos, eos[16];
    bool sample; /* do_sample: false means greedy unless the user says otherwise */
    float temperature, top_p, min_p, repetition_penalty;
    int top_k;
};

/* What loading had to say besides errors, one sentence each, for the user's eyes. */
struct notes {
    int n;
    char text[16][600];
};

/* config.json of the folder (or of the file itself, when path is a file; a GGUF file has it too)
 * into m; unknown fields
 * are reported in notes; an unsupported architecture is refused in one line that names those
 * supported. generation_config.json, when present, into g (bos/eos fall back to config.json). */
int model_load(const char *path, struct model *m, struct generation *g, struct notes *notes,
               struct err *e);
/* The same from bytes (untrusted). generation may be NULL/0 bytes. */
int model_parse(const char *config, size_t n, const char *generation, size_t n_generation,
                struct model *m, struct generation *g, struct notes *notes, struct err *e);

/* Sanity of the numbers themselves; model_parse calls it. */
int model_check(const struct model *m, struct err *e);

/* Shapes of known models ("llama-3.2-1b", "llama-3-8b", "qwen3-0.6b", ...) as config.json text;
 * NULL for an unknown name. model_known(i) is the i-th name, NULL past the end. */
const char *model_config(const char *name);
const char *model_known(int i);

/* Their names, separated by commas, 0-terminated; as many as fit into to[n]. */
void model_known_names(char *to, size_t n);

/* Whether the name is that of a well-known mixture of experts, of a kind which nothing here can run
 * yet. */
bool model_is_mixture(const char *name);

#endif
