#include "api_fixture.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float *some_floats(size_t n)
{
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++)
        x[i] = sinf((float)i * 0.37f);
    return x;
}

int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    prism_rope rope;
    assert_ok(prism_create(NULL, &f->ctx));
    prism_options_init(&f->options);
    assert_ok(prism_rope_init(&rope, DIM));
    assert_ok(prism_rope_add(&rope, PRISM_ROPE_HALF_SPLIT, 0, DIM, 1e4));
    assert_ok(prism_bands_split(&f->bands, &rope, 16, 24));
    f->options.bands = &f->bands;
    f->options.block_size = BLOCK;
    f->options.min_tokens = 0;
    f->options.top_p = 0.7f;
    prism_call_init(&f->call);
    f->call.n_head = HEADS;
    f->call.n_kv_head = KV_HEADS;
    f->call.d_head = DIM;
    f->call.n_q = f->call.n_kv = N;
    f->q = some_floats(N * HEADS * DIM);
    f->k = some_floats(N * KV_HEADS * DIM);
    f->v = some_floats(N * KV_HEADS * DIM);
    f->o = some_floats(N * HEADS * DIM);
    f->lse = some_floats(N * HEADS);
    f->call.q = prism_tensor_token_major(f->q, PRISM_F32, N, HEADS, DIM);
    f->call.k = prism_tensor_token_major(f->k, PRISM_F32, N, KV_HEADS, DIM);
    f->call.v = prism_tensor_token_major(f->v, PRISM_F32, N, KV_HEADS, DIM);
    f->call.o = prism_tensor_token_major(f->o, PRISM_F32, N, HEADS, DIM);
    f->call.lse = prism_tensor_token_major(f->lse, PRISM_F32, N, HEADS, 1);
    f->call.q.n_element = f->call.o.n_element = N * HEADS * DIM;
    f->call.k.n_element = f->call.v.n_element = N * KV_HEADS * DIM;
    f->call.lse.n_element = N * HEADS;
    assert_ok(prism_plan_create(f->ctx, &f->call, BLOCK, 0, &f->plan));
    f->workspace = aligned_alloc(64, ROOM);
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    fixture *f = *state;
    prism_plan_destroy(f->plan);
    prism_destroy(f->ctx);
    free(f->q);
    free(f->k);
    free(f->v);
    free(f->o);
    free(f->lse);
    free(f->workspace);
    free(f);
    return 0;
}

void assert_says(const fixture *f, prism_status got, prism_status want, const char *what)
{
    if (got != want)
        fail_msg("%s: %s, want %s (%s)", what, prism_status_name(got), prism_status_name(want),
                 prism_last_error(f->ctx));
    if (!prism_last_error(f->ctx)[0])
        fail_msg("%s: no sentence", what);
}

static prism_status knock(fixture *f, const prism_call *c, const prism_options *o, enum door door)
{
    static uint8_t mask[HEADS * N_BLK * N_BLK];
    size_t bytes;
    prism_plan *plan;
    switch (door) {
    case DOOR_BYTES: return prism_workspace_bytes(f->ctx, o, c, &bytes);
    case DOOR_PLAN: return prism_plan_build(f->ctx, o, c, f->plan, f->workspace, ROOM);
    case DOOR_ATTEND: return prism_attend(f->ctx, c, f->plan, f->workspace, ROOM);
    case DOOR_ATTENTION: return prism_attention(f->ctx, o, c, f->plan, f->workspace, ROOM, NULL);
    case DOOR_MASK: return prism_plan_from_mask(f->ctx, c, o->block_size, mask, sizeof mask, f->plan);
    default: {
        const prism_status status = prism_plan_create(f->ctx, c, o->block_size, 0, &plan);
        assert_true(status == PRISM_OK || plan == NULL);
        prism_plan_destroy(plan);
        return status;
    }
    }
}

void assert_refused(fixture *f, const prism_call *c, const prism_options *o, unsigned doors, prism_status want,
                    const char *what)
{
    static float before[N * HEADS * DIM];
    memcpy(before, f->o, sizeof before);
    for (unsigned door = 1; door <= DOOR_MASK; door <<= 1) {
        if (!(doors & door))
            continue;
        if (door == DOOR_ATTEND) /* a good plan, so that only the call is to blame */
            assert_ok(prism_plan_build(f->ctx, &f->options, &f->call, f->plan, f->workspace, ROOM));
        char text[128];
        snprintf(text, sizeof text, "%s, door %u", what, door);
        assert_says(f, knock(f, c, o, (enum door)door), want, text);
    }
    assert_memory_equal(before, f->o, sizeof before);
}
