#include "plan_file.h"

#include <stdlib.h>

#include "lm/safetensors.h"

void plan_file_add(void *user, int32_t layer, int32_t q_start, const prism_plan *plan)
{
    plan_file *f = user;
    prism_plan_view view = {.struct_size = sizeof view};
    if (layer < 0 || layer >= PLAN_FILE_MAX_LAYER || prism_plan_read(plan, &view)) {
        f->failed = true;
        return;
    }
    f->n_block = (f->n_token + f->block_size - 1) / f->block_size;
    f->n_head = view.n_head;
    f->n_layer = layer + 1 > f->n_layer ? layer + 1 : f->n_layer;
    if (!f->mask[layer])
        f->mask[layer] = calloc((size_t)f->n_head * (size_t)f->n_block, (size_t)f->n_block);
    if (!f->mask[layer]) {
        f->failed = true;
        return;
    }
    for (int64_t row = 0; row < view.n_row; row++) {
        const int64_t head = row / view.n_qblk, block = q_start / f->block_size + row % view.n_qblk;
        uint8_t *out = f->mask[layer] + (head * f->n_block + block) * f->n_block;
        for (int64_t t = view.row_ptr[row]; t < view.row_ptr[row + 1]; t++)
            out[view.index ? view.index[t] : t - view.row_ptr[row]] = 1;
    }
}

bool plan_file_write(const plan_file *f, const char *path, lm_error *err)
{
    lm_tensor tensors[PLAN_FILE_MAX_LAYER];
    char names[PLAN_FILE_MAX_LAYER][sizeof "layer." + 11];
    if (f->failed)
        return lm_fail(err, LM_ERROR_MEMORY, "out of memory for the plans of '%s'", path);
    for (int32_t l = 0; l < f->n_layer; l++) {
        snprintf(names[l], sizeof names[l], "layer.%d", l);
        tensors[l] = (lm_tensor){.name = names[l],
                                 .dtype = LM_U8,
                                 .n_dim = 3,
                                 .dim = {f->n_head, f->n_block, f->n_block},
                                 .data = f->mask[l],
                                 .bytes = (size_t)f->n_head * (size_t)f->n_block * (size_t)f->n_block};
    }
    const char *const method[] = {"method", prism_method_name(f->method)};
    return lm_safetensors_write(path, tensors, (size_t)f->n_layer, method, 1, err);
}

void plan_file_free(plan_file *f)
{
    for (int32_t l = 0; l < PLAN_FILE_MAX_LAYER; l++)
        free(f->mask[l]);
}
