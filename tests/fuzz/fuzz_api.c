/*
 * Drives the API with arbitrary sequences of calls: NULLs, wrong sizes, strides that lie (n_element, which is true,
 * must catch them), page tables, ragged lengths, stale plans, pooled keys of another shape. An error must have a
 * sentence and leave the output alone; nothing may crash.
 *
 * What the API cannot know is kept true: arrays have the lengths that the header asks for, and n_element the size of
 * the buffer. Lengths stay small where data is read, for a stride of 0 makes any length legal and slow.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "prism_attn/prism.h"

typedef struct input {
    const uint8_t *data;
    size_t size;
} input;

static unsigned take(input *in, unsigned n_choice)
{
    if (in->size == 0)
        return n_choice - 1; /* the end of the input chooses what is usual: edges stand first */
    const unsigned x = *in->data++;
    in->size--;
    return x % n_choice;
}

static int64_t take_i64(input *in)
{
    int64_t x = 0;
    for (int i = 0; i < 8; i++)
        x = (int64_t)((uint64_t)x << 8 | take(in, 256));
    return x;
}

/* Mostly sensible, sometimes on an edge, sometimes anything. */
static int32_t take_count(input *in, int32_t usual)
{
    static const int32_t edges[] = {0, -1, 1, 64, 128, 127, INT32_MAX, INT32_MIN};
    switch (take(in, 24)) {
    case 0: return edges[take(in, 8)];
    case 1: return (int32_t)take_i64(in);
    default: return (int32_t)take(in, (unsigned)usual) + 1;
    }
}

enum { n_element = 1 << 15, max_seq = 4, max_table = 40 };

/* What outlives one call of the sequence. */
typedef struct world {
    prism_ctx *ctx;
    prism_plan *plan[2];
    float *memory[4]; /* q, k, v, o */
    int32_t table[4][max_seq * max_table], row_start[4][max_seq], lengths[3][max_seq];
    prism_pooled pooled[max_seq];
    float *pooled_memory[max_seq];
    prism_bands bands;
} world;

static prism_tensor take_tensor(input *in, world *w, int which, const prism_call *c)
{
    /* The call's numbers may be anything: reduced, so that the fuzzer's own products cannot overflow. */
    const int64_t n_head = (which == 0 || which == 3 ? c->n_head : c->n_kv_head) % 64;
    const int64_t n_token = (which == 0 || which == 3 ? c->n_q : c->n_kv) % 65536;
    const int64_t d = c->d_head > 0 ? c->d_head % 65536 : 1;
    const unsigned type = take(in, 64);
    const prism_dtype dtype = (prism_dtype)(type ? type % 4 : 4);
    prism_tensor x = {
        w->memory[which], dtype, n_token * n_head * d % 65536, n_head * d, d, 1, NULL, NULL, 0, 0, 0, 0, 0};
    if (take(in, 2)) {
        x.stride_head = n_token * d;
        x.stride_token = d;
    }
    switch (take(in, 32)) {
    case 0: x.stride_token = take_i64(in); break;
    case 1: x.stride_head = take_i64(in); break;
    case 2: x.stride_dim = take(in, 3); break;
    case 3: x.stride_seq = take_i64(in); break;
    case 4: x.stride_token = 0; break;
    case 5: x.data = NULL; break;
    case 6: x.data = (char *)x.data + take(in, 4); break;
    case 7: x.stride_token = take(in, 256); break;
    default: break;
    }
    const unsigned kind = take(in, 3);
    if (kind == 1) {
        x.row_start = w->row_start[which];
        for (int s = 0; s < max_seq; s++)
            w->row_start[which][s] = take(in, 8) ? (int32_t)take(in, 64) : (int32_t)take_i64(in);
    } else if (kind == 2) {
        x.page_table = w->table[which];
        x.stride_table = take(in, max_table + 1);
        x.page_size = take_count(in, 64);
        x.n_page = take_count(in, 32);
        x.stride_page = take(in, 4) ? (int64_t)take(in, 256) * 8 : take_i64(in);
        for (int e = 0; e < max_seq * max_table; e++)
            w->table[which][e] = take(in, 16) ? (int32_t)take(in, 32) : (int32_t)take_i64(in);
    }
    x.n_element = n_element * 4 / (int64_t)(prism_dtype_bytes(dtype) ? prism_dtype_bytes(dtype) : 4) - 4;
    return x;
}

static prism_call take_call(input *in, world *w)
{
    static const int32_t heads[] = {1, 2, 4, 8, 16};
    prism_call c;
    prism_call_init(&c);
    c.n_kv_head = take(in, 16) ? heads[take(in, 3)] : take_count(in, 8);
    c.n_head =
        take(in, 16) && c.n_kv_head > 0 && c.n_kv_head < 64 ? c.n_kv_head * heads[take(in, 4)] : take_count(in, 8);
    c.d_head = take_count(in, 40);
    c.n_seq = take(in, 4) ? 1 : (int32_t)take(in, max_seq + 1);
    c.n_kv = (take(in, 8) ? (int32_t)take(in, 256) : (int32_t)take_i64(in) % 3000) + 1;
    c.n_q = take(in, 4) ? 1 + (int32_t)take(in, 256) % (c.n_kv > 0 ? c.n_kv : 1) : take_count(in, 200);
    c.q_start = take(in, 2) ? -1 : take_count(in, 200);
    for (int i = 0; i < 3; i++)
        for (int s = 0; s < max_seq; s++)
            w->lengths[i][s] = take(in, 2) ? (int32_t)take(in, 200) : 0;
    c.n_q_of = take(in, 4) ? NULL : w->lengths[0];
    c.n_kv_of = take(in, 4) ? NULL : w->lengths[1];
    c.q_start_of = take(in, 4) ? NULL : w->lengths[2];
    c.q = take_tensor(in, w, 0, &c);
    c.k = take_tensor(in, w, 1, &c);
    c.v = take_tensor(in, w, 2, &c);
    c.o = take_tensor(in, w, 3, &c);
    c.scale = take(in, 4) ? 0 : (float)take(in, 256) - 16;
    switch (take(in, 20)) {
    case 0: c.softcap = 1; break;
    case 1: c.window = -1; break;
    case 2: c.struct_size = take(in, 256); break;
    case 3: c.pooled = w->pooled; break;
    case 4: c.pooled = w->pooled; break;
    default: break;
    }
    return c;
}

static prism_options take_options(input *in, world *w, const prism_call *c)
{
    prism_options o;
    prism_rope rope;
    prism_options_init(&o);
    o.method = (prism_method)(take(in, 32) ? take(in, (unsigned)prism_method_count()) : 99);
    o.calibration = (prism_calibration)take(in, 2);
    o.block_size = take(in, 16) ? 64 << take(in, 2) : take_count(in, 200);
    o.top_p = (float)take(in, 101) / 100;
    o.min_tokens = take(in, 4) ? 0 : (int32_t)take(in, 250) - 2;
    o.keep_sink = take(in, 2);
    o.keep_own = take(in, 2);
    o.correct = (prism_correction)(take(in, 32) ? take(in, 4) : 9);
    o.moments_error = (float)take(in, 64) / 32;
    o.bands = take(in, 32) ? &w->bands : NULL;
    if (take(in, 32) && prism_rope_init(&rope, c->d_head) == PRISM_OK) {
        prism_rope_add(&rope, (prism_rope_layout)take(in, 3), (int32_t)take(in, 8), take_count(in, 40), 1e4);
        prism_bands_auto(&w->bands, &rope, 64);
    }
    char name[16], value[16];
    if (take(in, 16) == 0 && in->size > 32) {
        snprintf(name, sizeof name, "%.12s", (const char *)in->data);
        snprintf(value, sizeof value, "%.12s", (const char *)in->data + 13);
        prism_options_set(&o, name, value);
    }
    return o;
}

static void use_dlpack(input *in, world *w)
{
    struct {
        void *data;
        int32_t device_type, device_id, ndim;
        uint8_t code, bits;
        uint16_t lanes;
        int64_t *shape, *strides;
        uint64_t offset;
    } dl = {w->memory[0], 1,    0, (int32_t)take(in, 6), (uint8_t)take(in, 6), (uint8_t)(take(in, 3) * 16), 1,
            NULL,         NULL, 0};
    int64_t shape[5], strides[5];
    char order[6] = "bnhd";
    for (int i = 0; i < 5; i++) {
        shape[i] = take(in, 4) ? take(in, 64) : take_i64(in);
        strides[i] = take(in, 4) ? take(in, 64) : take_i64(in);
    }
    order[take(in, 4)] = "bnhdx"[take(in, 5)];
    dl.shape = take(in, 8) ? shape : NULL;
    dl.strides = take(in, 2) ? strides : NULL;
    prism_tensor out;
    prism_tensor_from_dlpack(take(in, 16) ? &dl : NULL, order + take(in, 2), &out);
}

/* Keys pooled by an earlier call of this input, or freshly set up for another shape. */
static void renew_pooled(input *in, world *w, const prism_call *c, int32_t block_size)
{
    for (int s = 0; s < max_seq; s++) {
        size_t bytes;
        const int32_t n_max = (int32_t)take(in, 256) + 1;
        prism_options o;
        prism_options_init(&o);
        o.block_size = block_size;
        o.method = take(in, 2) ? PRISM_METHOD_MOMENTS : PRISM_METHOD_PRISM;
        if (prism_pooled_bytes(&o, c->n_kv_head, c->d_head, n_max, &bytes) || bytes > 1 << 20)
            continue;
        free(w->pooled_memory[s]);
        w->pooled_memory[s] = aligned_alloc(64, (bytes + 63) / 64 * 64);
        if (!w->pooled_memory[s])
            abort();
        prism_pooled_init(&w->pooled[s], &o, c->n_kv_head, c->d_head, n_max, w->pooled_memory[s], bytes);
        if (take(in, 16) == 0)
            w->pooled[s].n_token = (int32_t)take_i64(in);
    }
}

static void *take_workspace(input *in, world *w, const prism_options *o, const prism_call *c, size_t *bytes)
{
    if (prism_workspace_bytes(w->ctx, o, c, bytes) || *bytes > 32 << 20)
        *bytes = 64;
    if (take(in, 16) == 0)
        *bytes -= *bytes > 64 ? 64 : 0;
    return aligned_alloc(64, (*bytes + 63) / 64 * 64);
}

/* Shapes that the API refuses or grants; a granted one may want more memory than there is. */
static bool small(const prism_call *c)
{
    return (double)c->n_seq * c->n_head * c->n_q * c->n_kv < 3e8;
}

static prism_status step(input *in, world *w, const prism_call *c, const prism_options *o)
{
    prism_plan **plan = &w->plan[take(in, 2)];
    size_t bytes;
    void *space = take_workspace(in, w, o, c, &bytes);
    prism_status status = PRISM_OK;
    static uint8_t mask[1 << 14];
    switch (take(in, 8)) {
    case 0:
        if (small(c)) {
            prism_plan_destroy(*plan);
            status = prism_plan_create(w->ctx, take(in, 32) ? c : NULL, o->block_size, (float)take(in, 11) / 10, plan);
        }
        break;
    case 1: status = prism_plan_build(w->ctx, o, c, *plan, space, bytes); break;
    case 2: status = prism_attend(w->ctx, c, *plan, space, bytes); break;
    case 3:
        memset(mask, (int)take(in, 2), sizeof mask);
        status = prism_plan_from_mask(w->ctx, c, o->block_size, mask, take(in, 8) ? sizeof mask : 3, *plan);
        break;
    case 4: status = prism_pool_append(w->ctx, c); break;
    case 5: renew_pooled(in, w, c, o->block_size); break;
    case 6: use_dlpack(in, w); break;
    default: status = prism_attention(w->ctx, o, c, *plan, space, bytes, NULL); break;
    }
    free(space);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    static world w; /* large: not for the stack */
    static float before[n_element];
    memset(&w, 0, sizeof w);
    prism_config config;
    prism_config_init(&config);
    config.n_thread = 1;
    config.isa = (prism_isa)take(&in, 4);
    if (prism_create(&config, &w.ctx))
        return 0;
    for (int i = 0; i < 4; i++)
        w.memory[i] = calloc(n_element, sizeof(float));
    for (int n = 0; n < 6 && in.size; n++) {
        const prism_call c = take_call(&in, &w);
        const prism_options o = take_options(&in, &w, &c);
        const unsigned repeat = take(&in, 4);
        for (unsigned i = 0; i <= repeat; i++) {
            memcpy(before, w.memory[3], sizeof before);
            const prism_status status = step(&in, &w, &c, &o);
            if (status && (!prism_last_error(w.ctx)[0] || memcmp(before, w.memory[3], sizeof before)))
                abort();
        }
    }
    for (int i = 0; i < 4; i++) {
        free(w.memory[i]);
        free(w.pooled_memory[i]);
    }
    prism_plan_destroy(w.plan[0]);
    prism_plan_destroy(w.plan[1]);
    prism_destroy(w.ctx);
    return 0;
}
