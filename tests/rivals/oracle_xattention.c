/* XAttention: antidiagonal sums over groups of `stride` tokens; tokens that are not there are zeros. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rivals.h"

/* sum over i of q[stride R + stride - 1 - i] . k[stride C + i] */
static double antidiagonal(const rival_seq *s, int h, int stride, int row, int column)
{
    double sum = 0;
    for (int i = 0; i < stride; i++) {
        const int at = stride * row + stride - 1 - i - s->q_start, c = stride * column + i;
        if (at >= 0 && at < s->n_q && c < n_keys(s))
            sum += dot(query(s, h, at), key_of(s, h, c), s->d);
    }
    return sum;
}

static bool any_query(const rival_seq *s, int stride, int row)
{
    for (int t = stride * row - s->q_start; t < stride * (row + 1) - s->q_start; t++)
        if (t >= 0 && t < s->n_q)
            return true;
    return false;
}

static void add_row(const rival_seq *s, int h, int stride, int row, double *prob, double *mass)
{
    double max = -INFINITY, sum = 0;
    for (int c = 0; c <= row; c++) {
        prob[c] = antidiagonal(s, h, stride, row, c) * s->scale / stride;
        max = prob[c] > max ? prob[c] : max;
    }
    for (int c = 0; c <= row; c++)
        sum += prob[c] = exp(prob[c] - max);
    for (int c = 0; c <= row; c++)
        mass[c * stride / s->block] += prob[c] / sum;
}

void oracle_xattention(const rival_seq *s, const rival_params *p, uint8_t *verdict)
{
    const int n_qblk = n_query_blocks(s), n_kblk = n_key_blocks(s), per_block = s->block / p->stride;
    double *mass = zeros(n_kblk, sizeof *mass), *prob = zeros((long)n_kblk * per_block, sizeof *prob);
    bool *forced = zeros(n_kblk, sizeof *forced);
    memset(verdict, DROPPED, (size_t)s->n_head * (size_t)n_qblk * (size_t)n_kblk);
    for (int h = 0; h < s->n_head; h++)
        for (int i = 0; i < n_qblk; i++) {
            const int own = first_block(s) + i;
            for (int v = 0; v <= own; v++) {
                mass[v] = 0;
                forced[v] = v == 0 || v == own;
            }
            for (int row = own * per_block; row < (own + 1) * per_block; row++)
                if (any_query(s, p->stride, row))
                    add_row(s, h, p->stride, row, prob, mass);
            judge_mass(mass, forced, own + 1, p->threshold, verdict + ((long)h * n_qblk + i) * n_kblk);
        }
    free(mass), free(prob), free(forced);
}
