/* Launch functions that make and read plans: lists from masks and from bitmaps, too little room, the full plan, masks,
 * counts, the order of rows. What pool and select choose is judged through the API (ck_select.c). */
#include <stdlib.h>
#include <string.h>

#include "launch_case.h"

typedef struct plan {
    launch *l;
    prism_cu_select e;
    int n_row;
    int64_t n_listed; /* by the masks */
    size_t mask_bytes;
    uint8_t *mask, *got; /* [n_seq][n_head][n_qblk][n_kblk] of the plan wanted; of the plan read */
} plan;

/* Blocks up to a row's own, of query block i of sequence s; -1: there is no such block. */
static int own_of(const plan *p, int row)
{
    const prism_cu_shape *s = &p->e.shape;
    const oracle_seq *q = &p->l->c->seq[row / s->n_qblk / s->n_head];
    const int i = row % s->n_qblk;
    return i < oracle_n_qblk(q) ? oracle_first_qblk(q) + i : -1;
}

static plan plan_new(launch *l)
{
    plan p = {.l = l};
    prism_cu_select *e = &p.e;
    e->shape = l->a.shape;
    e->block_size = l->a.block_size;
    const size_t n = (size_t)e->shape.n_seq * (size_t)e->shape.n_head * (size_t)e->shape.n_qblk;
    p.n_row = (int)n;
    p.mask_bytes = n * (size_t)e->shape.n_kblk;
    p.mask = launch_memory(l, p.mask_bytes, 0), p.got = launch_memory(l, p.mask_bytes, 7);
    e->capacity = (int64_t)p.mask_bytes;
    e->bitmap = launch_memory(l, (size_t)prism_select_bitmap_words(&e->shape, e->block_size) * sizeof(uint32_t), 0xff);
    e->count = launch_memory(l, n * sizeof(int32_t), 0xff);
    e->row_ptr = launch_memory(l, (n + 1) * sizeof(int64_t), 0xff);
    e->index = launch_memory(l, p.mask_bytes * sizeof(int32_t), 0xff);
    e->order = launch_memory(l, n * sizeof(int32_t), 0xff);
    e->full = launch_memory(l, sizeof(int32_t), 0xff);
    return p;
}

static bool fine(const plan *p, cudaError_t error, const char *what)
{
    runner_wait();
    return ck_ok(error == cudaSuccess, "%s: %s: error %d", p->l->name, what, error);
}

/* Rows of each KV head, each once, longest first. */
static void check_order(const plan *p, const char *what)
{
    const prism_cu_select *e = &p->e;
    const int n_group = e->shape.n_seq * e->shape.n_kv_head, per = p->n_row / n_group;
    bool ok = true;
    uint8_t *seen = calloc((size_t)p->n_row + 1, 1);
    for (int i = 0; i < p->n_row && ok; i++) {
        const int32_t row = e->order[i];
        ok = row >= 0 && row < p->n_row && row / per == i / per && !seen[row] &&
             (i % per == 0 || e->count[row] <= e->count[e->order[i - 1]]);
        if (ok)
            seen[row] = 1;
    }
    ck_ok(ok, "%s: %s: order of rows", p->l->name, what);
    free(seen);
}

/* Lists against the mask, up to the capacity; nothing is written past it. */
static void check_lists(const plan *p, const char *what)
{
    const prism_cu_select *e = &p->e;
    const int n_kblk = e->shape.n_kblk;
    int64_t n = 0, n_wrong = e->row_ptr[0] != 0;
    for (int row = 0; row < p->n_row; row++) {
        for (int v = 0; v < n_kblk; v++)
            if (p->mask[(size_t)row * (size_t)n_kblk + (size_t)v]) {
                n_wrong += n < e->capacity && e->index[n] != v;
                n++;
            }
        n_wrong += e->row_ptr[row + 1] != n;
    }
    for (int64_t i = n < e->capacity ? n : e->capacity; i < (int64_t)p->mask_bytes; i++)
        n_wrong += e->index[i] != -1;
    ck_ok(n_wrong == 0, "%s: %s: %lld entries are wrong", p->l->name, what, (long long)n_wrong);
    ck_ok(*e->full == (n > e->capacity), "%s: %s: full is %d", p->l->name, what, *e->full);
    check_order(p, what);
}

static void check_mask(const plan *p, bool causal, const char *what)
{
    memset(p->got, 7, p->mask_bytes);
    if (!fine(p, prism_plan_mask_cuda(&p->e, p->got, NULL), what))
        return;
    long n_wrong = 0;
    for (int row = 0; row < p->n_row; row++)
        for (int v = 0; v < p->e.shape.n_kblk; v++) {
            const size_t at = (size_t)row * (size_t)p->e.shape.n_kblk + (size_t)v;
            n_wrong += p->got[at] != (causal ? v <= own_of(p, row) : p->mask[at]);
        }
    ck_ok(n_wrong == 0, "%s: %s: %ld of the mask are wrong", p->l->name, what, n_wrong);
}

static void check_counts(const plan *p, bool full, const char *what)
{
    int64_t *out = launch_memory(p->l, 4 * sizeof *out, 0xff), n_causal = 0;
    if (!fine(p, prism_plan_counts_cuda(&p->e.shape, p->e.block_size, p->e.row_ptr, p->e.full, out, NULL), what))
        return;
    for (int row = 0; row < p->n_row; row++)
        n_causal += own_of(p, row) + 1;
    ck_ok(out[0] == (full ? n_causal : p->n_listed) && out[1] == n_causal && out[2] == full && out[3] == 0,
          "%s: %s: counts %lld, %lld, %lld, %lld", p->l->name, what, (long long)out[0], (long long)out[1],
          (long long)out[2], (long long)out[3]);
}

/* A third of the blocks, never block 5; a row without any is given its own. */
static void make_mask(plan *p, rng *r, uint8_t *given)
{
    const int n_kblk = p->e.shape.n_kblk;
    for (int row = 0; row < p->n_row; row++) {
        uint8_t *bits = p->mask + (size_t)row * (size_t)n_kblk;
        const int own = own_of(p, row);
        int n = 0;
        for (int v = 0; v <= own; v++)
            n += bits[v] = v != 5 && rng_range(r, 0, 2) == 0;
        memcpy(given + (size_t)row * (size_t)n_kblk, bits, (size_t)n_kblk);
        if (own >= 0 && n == 0)
            bits[own] = 1, n = 1;
        p->n_listed += n;
    }
}

static void check_plan(const launch_spec *spec, rng *r)
{
    launch *l = launch_new(spec, r);
    plan p = plan_new(l);
    uint8_t *given = launch_memory(l, p.mask_bytes, 0);
    int32_t *invalid = launch_memory(l, sizeof *invalid, 0x55);
    make_mask(&p, r, given);
    if (fine(&p, prism_plan_from_mask_cuda(&p.e, given, invalid, NULL), "from mask")) {
        ck_ok(*invalid == 0, "%s: from mask: invalid %d", l->name, *invalid);
        check_lists(&p, "from mask");
        check_mask(&p, false, "mask");
        check_counts(&p, false, "counts");
    }
    const int64_t capacity[] = {0, 1, p.n_listed - 1, p.n_listed};
    for (int i = 0; i < 4; i++) {
        memset(p.e.index, 0xff, p.mask_bytes * sizeof *p.e.index);
        p.e.capacity = capacity[i];
        if (!fine(&p, prism_plan_emit_cuda(&p.e, NULL), "emit"))
            continue;
        check_lists(&p, "little room");
        check_mask(&p, capacity[i] < p.n_listed, "mask, little room");
        check_counts(&p, capacity[i] < p.n_listed, "counts, little room");
    }
    given[p.e.shape.n_kblk - 1] = 1; /* the first row sees block 0, or a few: not the last */
    if (own_of(&p, 0) < p.e.shape.n_kblk - 1 &&
        fine(&p, prism_plan_from_mask_cuda(&p.e, given, invalid, NULL), "above the limit")) {
        ck_ok(*invalid == 1, "%s: a mask above the causal limit", l->name);
        check_lists(&p, "above the limit");
    }
    if (fine(&p, prism_plan_full_cuda(&p.e, NULL), "full plan")) {
        p.e.index = NULL, p.e.full = NULL;
        check_mask(&p, true, "full plan");
        check_order(&p, "full plan");
    }
    launch_free(l);
}

void ck_launch_plan(void)
{
    rng r = ck_rng("launch plan");
    for (int i = 0; i < 12; i++) {
        launch_spec spec = {.s = {.d = 64, .dtype = PRISM_F16, .block = i % 2 ? 64 : 128}};
        launch_lengths(&spec, rng_range(&r, 1000, 5000), 6000, i % 4 ? 4 : 8, 2);
        if (i % 3 == 2) {
            spec.s.n_seq = 3, spec.s.n_q[1] = 1, spec.s.q_start[1] = 2000, spec.s.n_q[2] = 700;
            spec.s.q_layout = spec.s.kv_layout = spec.s.o_layout = RAGGED;
        }
        check_plan(&spec, &r);
    }
}
