/*
 * MInference, vertical-slash. A column or distance near the budget's edge is open, and so is every key that it decides:
 * an open column itself; of an open distance the 64 keys it claims and the 64 on either side, for a claim that touches
 * a neighbouring stretch lengthens that by 64, and with the claim gone the next one does so from another place.
 */
#include <math.h>
#include <stdlib.h>

#include "rivals.h"

/* The authors' loop, for queries [end - 64, end): walks columns and distances together, as their index kernel does. */
static void mark(const uint8_t *column, const uint8_t *slash, int n_kv, int end, uint8_t *reads)
{
    int distance = n_kv - 1, from, to;
    while (distance >= 0 && (slash[distance] == DROPPED || distance >= end))
        distance--;
    if (distance < 0)
        return;
    to = end - distance > 64 ? end - distance : 64;
    from = to - 64;
    for (;;) {
        for (int c = from; c < to && c < n_kv && c < end; c++)
            reads[c] = KEPT;
        do
            distance--;
        while (distance >= 0 && slash[distance] == DROPPED);
        if (distance < 0)
            break;
        const int claim = end - distance > 64 ? end - distance : 64;
        if (claim > to + 64) {
            from = claim - 64;
            to = claim;
        } else if (claim > to) {
            to += 64;
        }
    }
    for (int c = 0; c < end && c < n_kv; c++)
        if (column[c] != DROPPED)
            reads[c] = KEPT;
}

static void open_around(const uint8_t *column, const uint8_t *slash, int n_kv, int end, uint8_t *reads)
{
    for (int distance = 0; distance < end && distance < n_kv; distance++)
        for (int c = end - distance - 192; slash[distance] == OPEN && c < end - distance + 128; c++)
            if (c >= 0 && c < end && c < n_kv)
                reads[c] = OPEN;
    for (int c = 0; c < end && c < n_kv; c++)
        if (column[c] == OPEN && reads[c] == KEPT)
            reads[c] = OPEN;
}

void oracle_minference(const rival_seq *s, const rival_params *p, uint8_t *verdict)
{
    const int n_kv = n_keys(s), n_asked = s->n_q < 64 ? s->n_q : 64, total = (int)floor(n_kv * p->budget);
    const int vertical = p->budget > 0 ? (int)(0.2 * total) : p->vertical;
    const int diagonal = p->budget > 0 ? (int)(0.8 * total) : p->slash;
    double *x = zeros(n_kv, sizeof *x), *y = zeros(n_kv, sizeof *y);
    bool *first = zeros(n_kv, sizeof *first), *near = zeros(n_kv, sizeof *near);
    uint8_t *column = zeros(n_kv, 1), *slash = zeros(n_kv, 1);
    for (int c = 0; c < n_kv; c++) {
        first[c] = c < 30;
        near[c] = c < 100;
    }
    for (int h = 0; h < s->n_head; h++) {
        probe(s, h, n_asked, x, y);
        judge_top_k(x, first, n_kv, vertical > 30 ? vertical : 30, column);
        judge_top_k(y, near, n_kv, diagonal > 50 ? diagonal : 50, slash);
        for (int i = 0; i < n_query_blocks(s); i++) {
            uint8_t *reads = verdict + ((long)h * n_query_blocks(s) + i) * n_kv;
            const int begin = (first_block(s) + i) * s->block;
            for (int c = 0; c < n_kv; c++)
                reads[c] = DROPPED;
            for (int end = begin + 64; end <= begin + s->block; end += 64)
                if (end > s->q_start && end - 64 < n_kv)
                    mark(column, slash, n_kv, end, reads);
            for (int end = begin + 64; end <= begin + s->block; end += 64)
                if (end > s->q_start && end - 64 < n_kv)
                    open_around(column, slash, n_kv, end, reads);
        }
    }
    free(x), free(y), free(first), free(near), free(column), free(slash);
}
