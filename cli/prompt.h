/* The prompt of a run: a text, a file, or one of RULER's JSON records with its gold answers. */
#ifndef CLI_PROMPT_H
#define CLI_PROMPT_H

#include "cli.h"

typedef struct cli_prompt {
    char *text;
    size_t n;
    cJSON *gold; /* array of strings; NULL: none known */
} cli_prompt;

bool cli_prompt_from_text(const char *text, cli_prompt *out, lm_error *err);
/* question: follows the file's text after an empty line; NULL: there is none. */
bool cli_prompt_from_file(const char *path, const char *question, cli_prompt *out, lm_error *err);
/* {"0": {"origin_prompt": [{"role": "HUMAN", "prompt": "..."}], "gold": ["..."]}, ...}; key NULL: the first record. */
bool cli_prompt_from_ruler(const char *path, const char *key, cli_prompt *out, lm_error *err);
void cli_prompt_free(cli_prompt *p);

/* How many gold answers stand in the answer, letter case aside: RULER's string match. */
int cli_prompt_count_gold(const cli_prompt *p, const char *answer);

#endif
