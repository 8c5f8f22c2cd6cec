/* Rows of tokens and their panels; see operand.h. */
#include "cpu/operand.h"

#include <string.h>

#include "core/half.h"

static const float log2_e = 1.44269504f;

prism_operand prism_operand_make(const prism_tier *k, const prism_problem *p, bool bf16)
{
    const int32_t d = p->call->d_head;
    return (prism_operand){
        .k = k,
        .bf16 = bf16,
        .bytes = bf16 ? sizeof(uint16_t) : sizeof(float),
        .d = d,
        .depth = bf16 ? prism_round_up(d, k->depth_bf16) : d,
        .panel = bf16 ? k->panel_bf16 : k->panel,
        .d_pad = prism_round_up(d, PRISM_MAX_PANEL),
        .q_factor = bf16 ? 1.0f : p->scale * log2_e,
        .scale = bf16 ? p->scale * log2_e : 1.0f,
    };
}

void prism_operand_load(const prism_operand *op, const prism_tensor *x, int32_t s, int32_t t, int32_t h, float factor,
                        void *row)
{
    const int32_t d = op->d;
    if (op->bf16) {
        const uint16_t *src = prism_tensor_at(x, s, t, h);
        uint16_t *dst = row;
        if (x->stride_dim == 1)
            memcpy(dst, src, (size_t)d * sizeof *dst);
        else
            for (int32_t j = 0; j < d; j++)
                dst[j] = src[j * x->stride_dim];
    } else {
        prism_load_token(op->k, x, s, t, h, d, row);
        if (factor != 1.0f)
            op->k->store_row[PRISM_F32](row, row, d, factor);
    }
    memset(prism_operand_at(op, row, d), 0, (size_t)(op->depth - d) * op->bytes);
}

void prism_operand_load_rows(const prism_operand *op, const prism_tensor *x, int32_t s, int32_t begin, int32_t n,
                             int32_t n_row, int32_t h, void *rows)
{
    for (int32_t j = 0; j < n; j++)
        prism_operand_load(op, x, s, begin + j, h, 1.0f, prism_operand_at(op, rows, (int64_t)j * op->depth));
    memset(prism_operand_at(op, rows, (int64_t)n * op->depth), 0, (size_t)(n_row - n) * (size_t)op->depth * op->bytes);
}

/* Moves words of four bytes: a float32, or two bfloat16 of one token. out[l][j] = rows[first + j][l] */
void prism_operand_pack_keys(const prism_operand *op, const void *rows, int32_t n, void *keys)
{
    const int32_t width = op->panel, n_word = (int32_t)((size_t)op->depth * op->bytes / sizeof(uint32_t));
    const uint32_t *in = rows;
    uint32_t *out = keys;
    for (int32_t first = 0; first < n; first += width, in += (int64_t)width * n_word)
        for (int32_t l = 0; l < n_word; l++)
            for (int32_t j = 0; j < width; j++)
                *out++ = in[(int64_t)j * n_word + l];
}

static void pack_values_f32(const prism_operand *op, const float *rows, int32_t n, float *out)
{
    const int32_t width = op->panel, d = op->depth;
    for (int32_t first = 0; first < op->d_pad; first += width)
        for (int32_t i = 0; i < n; i++)
            for (int32_t j = first; j < first + width; j++)
                *out++ = j < d ? rows[(int64_t)i * d + j] : 0.0f;
}

static void pack_values_bf16(const prism_operand *op, const uint16_t *rows, int32_t n, uint16_t *out)
{
    const int32_t width = op->panel, d = op->depth;
    for (int32_t first = 0; first < op->d_pad; first += width)
        for (int32_t i = 0; i < n; i += 2) {
            const uint16_t *row = rows + (int64_t)i * d;
            const int32_t end = d - first < width ? d - first : width;
            for (int32_t j = 0; j < end; j++) {
                out[2 * j] = row[first + j];
                out[2 * j + 1] = row[d + first + j];
            }
            if (end < width)
                memset(out + 2 * (end > 0 ? end : 0), 0, (size_t)(width - (end > 0 ? end : 0)) * 2 * sizeof *out);
            out += 2 * width;
        }
}

void prism_operand_pack_values(const prism_operand *op, const void *rows, int32_t n, void *values)
{
    if (op->bf16)
        pack_values_bf16(op, rows, n, values);
    else
        pack_values_f32(op, rows, n, values);
}

void prism_operand_clear_value(const prism_operand *op, void *values, int32_t n, int32_t j)
{
    const int32_t width = op->panel;
    for (int32_t first = 0; first < op->d_pad; first += width) {
        char *panel = prism_operand_at(op, values, (int64_t)first * n);
        if (!op->bf16)
            memset(panel + (size_t)j * (size_t)width * sizeof(float), 0, (size_t)width * sizeof(float));
        for (int32_t c = 0; op->bf16 && c < width; c++)
            ((uint16_t *)panel)[((int64_t)(j / 2) * width + c) * 2 + j % 2] = 0;
    }
}

bool prism_operand_all_finite(const prism_operand *op, const void *rows, int32_t n)
{
    const int64_t n_word = (int64_t)n * op->depth * (int64_t)op->bytes / (int64_t)sizeof(uint32_t);
    const uint32_t *x = rows, low = op->bf16 ? 0x7f80 : 0;
    uint32_t bad = 0; /* integers, so that the loop vectorises; the upper half of a word is a bfloat16 or a float32 */
    for (int64_t i = 0; i < n_word; i++)
        bad |= ((x[i] & 0x7f800000) == 0x7f800000) | (low && (x[i] & low) == low);
    return !bad;
}
