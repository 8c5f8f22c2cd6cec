/*
 * groups: mask -> sequences. ggml says by a mask alone which cells of the KV cache a query sees: cells of several
 * sequences lie mixed, in any order, with holes. A run of rows that each see one cell more than the row before is a
 * sequence's next tokens; the cells, in the order in which the rows come to see them, are its positions.
 */
#include "plugin.h"

#include <stdlib.h>
#include <string.h>

enum { hidden = 0xFC00, visible = 0x0000, negative_zero = 0x8000 }; /* float16: -inf, 0, -0 */
enum { min_rows = 16 }; /* a group's average: masks of many smaller groups, above all sliding windows, go to ggml */

static bool grow(void **data, int64_t *n_max, int64_t need, size_t each)
{
    if (need <= *n_max)
        return true;
    const int64_t n = need + need / 2;
    void *grown = realloc(*data, (size_t)n * each);
    if (!grown)
        return false;
    *data = grown;
    *n_max = n;
    return true;
}

/* Returns the cell that `row` sees and `before` does not, if the two differ in this cell alone; else -1. */
static int32_t next_cell(const uint16_t *before, const uint16_t *row, int64_t n)
{
    enum { stretch = 1024 };
    int32_t found = -1;
    for (int64_t from = 0; from < n; from += stretch) {
        const int64_t to = n - from < stretch ? n : from + stretch;
        if (!memcmp(before + from, row + from, (size_t)(to - from) * sizeof *row))
            continue;
        for (int64_t i = from; i < to; i++) {
            if (before[i] == row[i])
                continue;
            if (found >= 0 || before[i] != hidden || (row[i] != visible && row[i] != negative_zero))
                return -1;
            found = (int32_t)i;
        }
    }
    return found;
}

/* Writes the cells that a row sees, ascending. False: the mask holds other values than 0 and -inf. */
static bool list_cells(const uint16_t *row, int64_t n, int32_t *cell, int32_t *n_cell)
{
    int32_t count = 0;
    for (int64_t i = 0; i < n; i++) {
        if (row[i] == hidden)
            continue;
        if (row[i] != visible && row[i] != negative_zero)
            return false;
        cell[count++] = (int32_t)i;
    }
    *n_cell = count;
    return true;
}

static bool is_contiguous(const int32_t *cell, int32_t n)
{
    for (int32_t i = 1; i < n; i++)
        if (cell[i] != cell[0] + i)
            return false;
    return true;
}

typedef struct stream_mask {
    const char *data;
    size_t stride;
    int64_t n_q, n_kv;
    int32_t stream;
} stream_mask;

static const uint16_t *mask_row(const stream_mask *m, int64_t row)
{
    return (const uint16_t *)(m->data + (size_t)row * m->stride);
}

static const char *add_group(plugin_groups *groups, const stream_mask *m, int32_t *row)
{
    if (!grow((void **)&groups->group, &groups->n_group_max, groups->n_group + 1, sizeof *groups->group) ||
        !grow((void **)&groups->cell, &groups->n_cell_max, groups->n_cell + m->n_kv + 1, sizeof *groups->cell))
        return "no memory";
    plugin_group *g = &groups->group[groups->n_group++];
    *g = (plugin_group){.stream = m->stream, .row = *row, .first_cell = (int32_t)groups->n_cell};
    int32_t *cell = groups->cell + groups->n_cell;
    if (!list_cells(mask_row(m, *row), m->n_kv, cell, &g->n_kv))
        return "the mask holds other values than 0 and -inf";
    if (g->n_kv == 0)
        return "a query sees nothing";
    for (g->n_row = 1; *row + g->n_row < m->n_q; g->n_row++) {
        const int64_t r = *row + g->n_row;
        const int32_t next = next_cell(mask_row(m, r - 1), mask_row(m, r), m->n_kv);
        if (next < 0)
            break;
        cell[g->n_kv++] = next;
    }
    g->contiguous = is_contiguous(cell, g->n_kv);
    groups->n_cell += g->n_kv;
    *row += g->n_row;
    return NULL;
}

const char *plugin_groups_find(plugin_groups *groups, const ggml_tensor *mask, int64_t n_q, int64_t n_stream)
{
    groups->n_group = 0;
    groups->n_cell = 0;
    const char *why = NULL;
    for (int32_t s = 0; s < n_stream && !why; s++) {
        const stream_mask m = {.data = (const char *)mask->data + (size_t)s * mask->nb[3],
                               .stride = mask->nb[1],
                               .n_q = n_q,
                               .n_kv = mask->ne[0],
                               .stream = s};
        for (int32_t row = 0; row < n_q && !why;) {
            why = add_group(groups, &m, &row);
            if (!why && (int64_t)groups->n_group * min_rows > n_q * n_stream + min_rows)
                why = "the mask is not causal, or of many short sequences";
        }
    }
    return why;
}

void plugin_groups_free(plugin_groups *groups)
{
    free(groups->group);
    free(groups->cell);
    *groups = (plugin_groups){0};
}
