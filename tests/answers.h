/* Whole calls and their answers, for the tests of what must be the same whichever way it is asked for. */
#ifndef TESTS_ANSWERS_H
#define TESTS_ANSWERS_H

#include "cases.h"
#include "check.h"

/* Block size and bands of the case, no sequence too short. */
prism_options options_with(const test_case *c, prism_method method, float top_p);
prism_options causal_options(const test_case *c);

/* A plain case: one sequence from position 0, blocks of 64. */
shape plain(int n, int n_head, int n_kv_head, int d);

/* Outputs of the whole call, sequence after sequence: [n_head][n_q][d], then lse. */
typedef struct answer {
    double *out, *lse;
    size_t n_out, n_lse;
} answer;

answer read_answer(const test_case *c);
void answer_free(answer *a);
void assert_same_bits(const answer *a, const answer *b);

/* prism_attention() with exactly the memory it asks for; asserts the path taken. */
answer attention(prism_ctx *ctx, test_case *c, const prism_options *o, prism_path path);

/* cmocka's group fixture: *state is a context of two threads. */
int new_context(void **state);
int drop_context(void **state);

#endif
