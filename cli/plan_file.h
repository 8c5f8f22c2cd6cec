/* Plans of all layers, gathered chunk by chunk and written as one safetensors file. */
#ifndef CLI_PLAN_FILE_H
#define CLI_PLAN_FILE_H

#include "cli.h"

enum { PLAN_FILE_MAX_LAYER = 512 };

typedef struct plan_file {
    int32_t n_token, block_size; /* set by the caller, as is method; the rest starts as 0 */
    prism_method method;
    int32_t n_block, n_head, n_layer;
    uint8_t *mask[PLAN_FILE_MAX_LAYER]; /* [n_head][n_block][n_block]; NULL: no plan came, or no memory */
    bool failed;
} plan_file;

void plan_file_add(void *plan_file, int32_t layer, int32_t q_start, const prism_plan *plan); /* an lm_on_plan */
bool plan_file_write(const plan_file *f, const char *path, lm_error *err);
void plan_file_free(plan_file *f);

#endif
