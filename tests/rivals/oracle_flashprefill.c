/* FlashPrefill: query tokens against block means; a block counts for a query from its last key on. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rivals.h"

/* Summed exponentials of row i of head h, relative to the largest of the tile. */
static void row_masses(const rival_seq *s, int h, int i, const double *means, double *mass)
{
    const int own = first_block(s) + i;
    double max = -INFINITY;
    for (int pass = 0; pass < 2; pass++)
        for (int v = 0; v <= own; v++) {
            const int last_key = (v + 1) * s->block - 1;
            mass[v] = 0;
            for (int t = 0; t < s->n_q; t++) {
                const int position = s->q_start + t;
                if (position / s->block != own || position < last_key)
                    continue;
                const double x = s->scale * dot(query(s, h, t), means + (long)v * s->d, s->d);
                if (pass == 0)
                    max = x > max ? x : max;
                else
                    mass[v] += exp(x - max);
            }
        }
}

void oracle_flashprefill(const rival_seq *s, const rival_params *p, uint8_t *verdict)
{
    const int n_qblk = n_query_blocks(s), n_kblk = n_key_blocks(s);
    double *means = zeros((long)n_kblk * s->d, sizeof *means), *mass = zeros(n_kblk, sizeof *mass);
    memset(verdict, DROPPED, (size_t)s->n_head * (size_t)n_qblk * (size_t)n_kblk);
    for (int h = 0; h < s->n_head; h++) {
        for (int v = 0; v < n_kblk; v++) {
            const int left = n_keys(s) - v * s->block, n = left < s->block ? left : s->block;
            for (int j = 0; j < s->d; j++) {
                double sum = 0;
                for (int c = v * s->block; c < v * s->block + n; c++)
                    sum += key_of(s, h, c)[j];
                means[(long)v * s->d + j] = sum / n;
            }
        }
        for (int i = 0; i < n_qblk; i++) {
            const int own = first_block(s) + i;
            uint8_t *out = verdict + ((long)h * n_qblk + i) * n_kblk;
            double best = 0;
            row_masses(s, h, i, means, mass);
            for (int v = 0; v <= own; v++)
                best = mass[v] > best ? mass[v] : best;
            for (int v = 0; v <= own; v++) {
                const double cut = p->alpha * best;
                out[v] = best == 0 || mass[v] < cut * (1 - 2 * rel) ? DROPPED
                         : mass[v] >= cut * (1 + 2 * rel)           ? KEPT
                                                                    : OPEN;
                if (v < p->sink || own - v < p->window || i >= n_qblk - p->last)
                    out[v] = KEPT;
            }
        }
    }
    free(means), free(mass);
}
