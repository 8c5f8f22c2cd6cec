#include "eval/work.h"

void eval_work_on_call(void *user, int32_t layer, const prism_call *call)
{
    eval_work *w = user;
    (void)layer;
    w->n_q = call->n_q;
    w->d_head = call->d_head;
}

/* Queries of the call in its i-th query block. */
static int32_t rows_of(int32_t q_start, int32_t n_q, int32_t block_size, int32_t i)
{
    const int32_t first = (q_start / block_size + i) * block_size, end = first + block_size;
    const int32_t from = first > q_start ? first : q_start, to = end < q_start + n_q ? end : q_start + n_q;
    return to > from ? to - from : 0;
}

void eval_work_on_plan(void *user, int32_t layer, int32_t q_start, const prism_plan *plan)
{
    eval_work *w = user;
    prism_plan_view v = {.struct_size = sizeof v};
    double pairs = 0;
    (void)layer;
    if (prism_plan_read(plan, &v))
        return;
    for (int32_t h = 0; h < v.n_head; h++)
        for (int32_t i = 0; i < v.n_qblk; i++) {
            const int64_t row = (int64_t)h * v.n_qblk + i;
            double keys = (double)(v.row_ptr[row + 1] - v.row_ptr[row]) * v.block_size;
            if (v.key_ptr)
                keys += (double)(v.key_ptr[row + 1] - v.key_ptr[row]);
            pairs += keys * rows_of(q_start, w->n_q, v.block_size, i);
        }
    w->flop += v.select_flop + 4.0 * w->d_head * pairs;
}
