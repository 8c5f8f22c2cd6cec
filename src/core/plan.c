#include "core/plan.h"

#include <stdlib.h>

void prism_plan_reserve_keys(prism_plan *plan)
{
    int64_t n;
    if (__builtin_mul_overflow(plan->n_index_max, (int64_t)plan->block_size - 1, &n) || n > INT64_MAX / 16)
        n = INT64_MAX / 16;
    for (; n > 0 && !plan->key_index; n = plan->key_index ? n : n / 2)
        plan->key_index = (uint64_t)n <= SIZE_MAX / 8 ? malloc((size_t)n * sizeof *plan->key_index) : NULL;
    plan->n_key_max = n;
}

static bool has_room(const prism_plan *plan, const prism_problem *p, int64_t n_index)
{
    return p->n_row <= plan->n_row_max && p->call->n_seq <= plan->n_seq_max && n_index <= plan->n_index_max;
}

bool prism_plan_set_shape(prism_plan *plan, const prism_problem *p)
{
    const prism_call *c = p->call;
    if (!has_room(plan, p, 0))
        return false;
    plan->n_seq = c->n_seq;
    plan->n_head = c->n_head;
    plan->n_qblk = p->n_qblk;
    plan->n_kblk = p->n_kblk;
    plan->block_size = p->block_size;
    plan->n_row = p->n_row;
    plan->n_causal = 0;
    plan->row_ptr[0] = 0;
    plan->has_keys = false;
    plan->select_flop = plan->correct_flop = plan->pool_seconds = 0;
    plan->correct = PRISM_CORRECTION_NONE;
    plan->precision = p->precision;
    plan->pools = false;
    for (int32_t s = 0; s < c->n_seq; s++) {
        plan->seq[s] = prism_problem_seq(p, s);
        plan->n_causal += c->n_head * prism_seq_causal_blocks(&plan->seq[s]);
    }
    plan->device_lengths = p->device_lengths;
    return true;
}

bool prism_plan_matches(const prism_plan *plan, const prism_problem *p)
{
    const prism_call *c = p->call;
    if (plan->n_seq != c->n_seq || plan->n_head != c->n_head || plan->block_size != p->block_size ||
        plan->device_lengths != p->device_lengths)
        return false;
    if (p->device_lengths)
        return plan->n_qblk == p->n_qblk && plan->n_kblk == p->n_kblk;
    for (int32_t s = 0; s < c->n_seq; s++) {
        const prism_seq q = prism_problem_seq(p, s);
        if (q.n_q != plan->seq[s].n_q || q.q_start != plan->seq[s].q_start)
            return false;
    }
    return true;
}

void prism_plan_fill_full(prism_plan *plan)
{
    int64_t row = 0;
    for (int32_t s = 0; s < plan->n_seq; s++)
        for (int32_t h = 0; h < plan->n_head; h++)
            for (int32_t i = 0; i < plan->n_qblk; i++, row++) {
                const prism_seq *q = &plan->seq[s];
                const int32_t n = i < q->n_qblk ? q->first_qblk + i + 1 : 0;
                plan->row_ptr[row + 1] = plan->row_ptr[row] + n;
            }
    plan->full = true;
}

static int64_t count_bits(const uint64_t *bits, int64_t n_word)
{
    int64_t n = 0;
    for (int64_t w = 0; w < n_word; w++)
        n += __builtin_popcountll(bits[w]);
    return n;
}

bool prism_plan_set_bits(prism_plan *plan, const prism_problem *p, const uint64_t *bits, int64_t *n_selected)
{
    *n_selected = count_bits(bits, p->n_row * p->n_word);
    if (!has_room(plan, p, *n_selected) || !prism_plan_set_shape(plan, p))
        return false;
    int32_t *out = plan->index;
    for (int64_t row = 0; row < p->n_row; row++) {
        for (int32_t w = 0; w < p->n_word; w++)
            for (uint64_t word = bits[row * p->n_word + w]; word; word &= word - 1)
                *out++ = w * 64 + __builtin_ctzll(word);
        plan->row_ptr[row + 1] = out - plan->index;
    }
    plan->full = false;
    plan->path = PRISM_PATH_SPARSE;
    return true;
}

static int64_t sum(const int32_t *x, int64_t n)
{
    int64_t all = 0;
    for (int64_t i = 0; i < n; i++)
        all += x[i];
    return all;
}

bool prism_plan_open(prism_plan *plan, const prism_problem *p, const int32_t *n_block, const int32_t *n_key,
                     int64_t *n_block_all, int64_t *n_key_all)
{
    *n_block_all = sum(n_block, p->n_row);
    *n_key_all = sum(n_key, p->n_row);
    if (!has_room(plan, p, *n_block_all) || *n_key_all > plan->n_key_max || !prism_plan_set_shape(plan, p))
        return false;
    plan->key_ptr[0] = 0;
    for (int64_t row = 0; row < p->n_row; row++) {
        plan->row_ptr[row + 1] = plan->row_ptr[row] + n_block[row];
        plan->key_ptr[row + 1] = plan->key_ptr[row] + n_key[row];
    }
    plan->has_keys = *n_key_all > 0;
    plan->full = false;
    plan->path = PRISM_PATH_SPARSE;
    return true;
}

/* Returns how many blocks a mask's row lists; -1 if one lies above the causal limit. out: NULL, or gets the blocks. */
static int64_t read_mask_row(const uint8_t *mask, int32_t n_kblk, int32_t own, int32_t *out)
{
    int64_t n = 0;
    for (int32_t v = 0; v < n_kblk; v++) {
        if (!mask[v])
            continue;
        if (v > own)
            return -1;
        if (out)
            out[n] = v;
        n++;
    }
    if (n == 0 && own >= 0) {
        if (out)
            out[0] = own;
        n = 1;
    }
    return n;
}

static int32_t own_block(const prism_problem *p, int64_t row)
{
    const prism_seq q = prism_problem_seq(p, (int32_t)(row / p->n_qblk / p->call->n_head));
    const int32_t i = (int32_t)(row % p->n_qblk);
    return i < q.n_qblk ? q.first_qblk + i : -1;
}

bool prism_plan_set_mask(prism_plan *plan, const prism_problem *p, const uint8_t *mask, int64_t *bad_row,
                         int64_t *n_selected)
{
    *n_selected = 0;
    for (int64_t row = 0; row < p->n_row; row++) {
        const int64_t n = read_mask_row(mask + row * p->n_kblk, p->n_kblk, own_block(p, row), NULL);
        if (n < 0) {
            *bad_row = row;
            return false;
        }
        *n_selected += n;
    }
    *bad_row = -1;
    if (!has_room(plan, p, *n_selected) || !prism_plan_set_shape(plan, p))
        return false;
    for (int64_t row = 0; row < p->n_row; row++)
        plan->row_ptr[row + 1] =
            plan->row_ptr[row] +
            read_mask_row(mask + row * p->n_kblk, p->n_kblk, own_block(p, row), plan->index + plan->row_ptr[row]);
    plan->full = false;
    plan->path = PRISM_PATH_SPARSE;
    return true;
}
