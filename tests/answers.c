#include "answers.h"

#include <stdlib.h>
#include <string.h>

prism_options options_with(const test_case *c, prism_method method, float top_p)
{
    prism_options o;
    prism_options_init(&o);
    o.method = method;
    o.block_size = c->s.block;
    o.top_p = top_p;
    o.min_tokens = 0;
    o.bands = &c->bands;
    return o;
}

prism_options causal_options(const test_case *c)
{
    prism_options o = options_with(c, PRISM_METHOD_PRISM, 0.7f);
    o.calibration = PRISM_CALIBRATION_CAUSAL;
    return o;
}

shape plain(int n, int n_head, int n_kv_head, int d)
{
    shape s = {.n_seq = 1, .n_head = n_head, .n_kv_head = n_kv_head, .d = d, .block = 64, .page_size = 16};
    s.n_q[0] = n;
    return s;
}

answer read_answer(const test_case *c)
{
    answer a = {0};
    for (int s = 0; s < c->s.n_seq; s++)
        a.n_lse += (size_t)(c->s.n_head * c->s.n_q[s]);
    a.n_out = a.n_lse * (size_t)c->s.d;
    a.out = malloc(a.n_out * sizeof(double));
    a.lse = malloc(a.n_lse * sizeof(double));
    size_t at = 0;
    for (int s = 0; s < c->s.n_seq; s++) {
        case_read(c, s, a.out + at * (size_t)c->s.d, a.lse + at);
        at += (size_t)(c->s.n_head * c->s.n_q[s]);
    }
    return a;
}

void answer_free(answer *a)
{
    free(a->out);
    free(a->lse);
}

void assert_same_bits(const answer *a, const answer *b)
{
    assert_int_equal(a->n_out, b->n_out);
    assert_memory_equal(a->out, b->out, a->n_out * sizeof(double));
    assert_memory_equal(a->lse, b->lse, a->n_lse * sizeof(double));
}

answer attention(prism_ctx *ctx, test_case *c, const prism_options *o, prism_path path)
{
    runner r = runner_new(ctx, o, &c->call);
    prism_stats stats = {.struct_size = sizeof stats};
    case_poison_outputs(c);
    assert_ok(prism_attention(ctx, o, &c->call, r.plan, r.workspace.data, r.workspace.bytes, &stats));
    assert_int_equal(stats.path, path);
    assert_true(stats.density > 0 && stats.density <= 1);
    assert_true(path == PRISM_PATH_SPARSE || stats.density == 1);
    const answer a = read_answer(c);
    runner_free(&r);
    return a;
}

int new_context(void **state)
{
    *state = context_new(PRISM_ISA_AUTO, 2);
    return *state == NULL;
}

int drop_context(void **state)
{
    prism_destroy(*state);
    return 0;
}
