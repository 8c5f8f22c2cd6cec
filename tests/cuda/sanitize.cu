/* Runs every kernel once on small odd shapes, for compute-sanitizer. Prints the number of launches that failed. */
#include "cuda/launch.h"
#include <cuda_bf16.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

static int failed;
static void expect(cudaError_t e, const char *what)
{
    if (!e)
        e = cudaDeviceSynchronize();
    if (e)
        failed++, printf("%s: %s\n", what, cudaGetErrorString(e));
}
template <class T> static T *make(size_t n, const T *from = nullptr)
{
    T *p;
    expect(cudaMalloc(&p, n * sizeof(T)), "malloc");
    if (from)
        cudaMemcpy(p, from, n * sizeof(T), cudaMemcpyHostToDevice);
    return p;
}
static void *random_bf16(size_t n)
{
    std::vector<__nv_bfloat16> h(n);
    for (auto &x : h)
        x = __float2bfloat16(rand() / (float)RAND_MAX * 2 - 1);
    return make(n, h.data());
}
static prism_cu_view view(void *data, int n_token, int n_head, int d)
{
    prism_cu_view v = {};
    v.data = data, v.stride_seq = (int64_t)n_token * n_head * d, v.stride_token = n_head * d, v.stride_head = d,
    v.n_token = n_token;
    return v;
}

static void moments(const prism_cu_shape &s, const prism_cu_view &q, const prism_cu_view &k, const prism_cu_view &v,
                    const prism_cu_view &o, const prism_cu_select &plan)
{
    prism_cu_moments m = {s, q, k, v, 128};
    const size_t n_row = (size_t)s.n_kblk * s.n_kv_head, n_all = n_row * s.d_head;
    m.n_block_seq = s.n_kblk;
    m.k_sum = make<float>(n_all), m.key = make<float>(n_all), m.variance = make<float>(n_all),
    m.value = make<float>(n_all);
    m.log_count = make<float>(n_row), m.query_sum = make<float>(n_all), m.n_query = make<int32_t>(n_row);
    m.moments_image = make<char>(prism_moments_image_bytes(&s)), m.scratch = make<float>(prism_moments_select_floats(&s));
    m.covariance = make<float>((size_t)20 * s.n_kv_head * s.d_head * (s.d_head + 1));
    m.scale = .1f, m.error = .01f, m.keep_own = 1, m.bitmap = make<uint32_t>(prism_select_bitmap_words(&s, 128)),
    m.count = make<int32_t>(s.n_head * s.n_qblk);
    m.row_ptr = plan.row_ptr, m.index = plan.index, m.full = plan.full;
    m.o = o, m.init_o = o.data, m.init_lse = make<float>((size_t)s.n_q * s.n_head), m.lse_stride_token = s.n_head,
    m.lse_stride_head = 1;
    expect(prism_moments_pool_cuda(&m, 0), "moments pool");
    expect(prism_moments_image_cuda(&m, 0), "moments image");
    expect(prism_moments_select_cuda(&m, 0), "moments select");
    expect(prism_moments_correct_cuda(&m, 0), "moments correct");
}

/* Pool, select, emit. n_band 1: one band of all dimensions. */
static prism_cu_select estimate(const prism_cu_shape &s, const prism_cu_view &q, const prism_cu_view &k, bool causal,
                                int n_band)
{
    prism_cu_pool p = {s, q, k};
    const int d = s.d_head, H = s.n_head, Hk = s.n_kv_head, n_row = s.n_seq * H * s.n_qblk;
    p.q_split = make<float>((size_t)s.n_seq * s.n_qblk * H * d), p.key_image = make<char>(prism_key_image_bytes(&s));
    p.q_energy = make<float>((size_t)4 * n_row), p.k_energy = make<float>((size_t)4 * s.n_seq * s.n_kblk * Hk);
    p.k_sum = make<float>((size_t)s.n_seq * s.n_kblk * Hk * d), p.k_sum_stride_seq = (int64_t)s.n_kblk * Hk * d;
    p.block_size = 128;
    for (int j = 0; j < d; j++)
        p.high[j / 32] |= (uint32_t)(j % (d / 2) < d / 4) << j % 32, p.low[j / 32] |= (uint32_t)(j % (d / 2) >= d / 8)
                                                                                      << j % 32;
    if (n_band == 1)
        memset(p.high, 0xff, sizeof p.high);
    expect(prism_pool_cuda(&p, 0), "pool");
    prism_cu_select e = {s, p.q_split, p.key_image, p.q_energy, p.k_energy};
    e.block_size = 128, e.n_band = n_band, e.causal_calibration = causal, e.keep_sink = e.keep_own = 1,
    e.top_p[0] = e.top_p[1] = .9f, e.scale = .1f;
    memcpy(e.high, p.high, sizeof e.high), memcpy(e.low, p.low, sizeof e.low);
    e.scratch = make<char>(prism_select_scratch_bytes(&s)),
    e.bitmap = make<uint32_t>(prism_select_bitmap_words(&s, 128)), e.count = make<int32_t>(n_row);
    e.row_ptr = make<int64_t>(n_row + 1), e.order = make<int32_t>(n_row), e.capacity = (int64_t)n_row * s.n_kblk,
    e.index = make<int32_t>(e.capacity);
    expect(prism_select_cuda(&e, 0), "select");
    e.full = make<int32_t>(1);
    expect(prism_plan_emit_cuda(&e, 0), "emit");
    return e;
}

/* Estimation alone, of shapes that not every attention kernel takes; two sequences, one of a single token. */
static void run_estimate(int n_q, int n_kv, int d, int n_band)
{
    const int H = 4, Hk = 2;
    const int32_t n_q_of[2] = {n_q, 1}, n_kv_of[2] = {n_kv, n_kv / 2};
    prism_cu_shape s = {
        2, H, Hk, d, PRISM_CU_BF16, n_q, n_kv, 0, (n_kv - 1) / 128 - (n_kv - n_q) / 128 + 1, (n_kv + 127) / 128};
    s.n_q_of = make(2, n_q_of), s.n_kv_of = make(2, n_kv_of);
    prism_cu_view q = view(random_bf16((size_t)2 * n_q * H * d), n_q, H, d),
                  k = view(random_bf16((size_t)2 * n_kv * Hk * d), n_kv, Hk, d);
    uint16_t inf = 0x7f80;
    cudaMemcpy((uint16_t *)k.data + (size_t)200 * Hk * d + 5, &inf, 2, cudaMemcpyHostToDevice);
    estimate(s, q, k, true, n_band);
}

static void run(int n_q, int n_kv, int d, int page)
{
    const int H = 4, Hk = 2, q0 = n_kv - n_q;
    prism_cu_shape s = {1, H, Hk, d, PRISM_CU_BF16, n_q, n_kv, q0, (n_kv - 1) / 128 - q0 / 128 + 1, (n_kv + 127) / 128};
    int n_row = H * s.n_qblk;
    prism_cu_view q = view(random_bf16((size_t)n_q * H * d), n_q, H, d),
                  o = view(random_bf16((size_t)n_q * H * d), n_q, H, d);
    prism_cu_view k = view(random_bf16((size_t)n_kv * Hk * d), n_kv, Hk, d),
                  v = view(random_bf16((size_t)n_kv * Hk * d), n_kv, Hk, d);
    if (page) {
        int n_page = (n_kv + page - 1) / page;
        std::vector<int32_t> t(n_page);
        for (int i = 0; i < n_page; i++)
            t[i] = n_page - 1 - i;
        int32_t *table = make(n_page, t.data());
        for (prism_cu_view *x : {&k, &v}) {
            *x = view(random_bf16((size_t)n_page * page * Hk * d), 0, Hk, d);
            x->page_table = table, x->stride_table = n_page, x->stride_page = (int64_t)page * Hk * d,
            x->page_size = page, x->n_page = n_page;
        }
    }
    prism_cu_select e = estimate(s, q, k, page == 0, 2);
    moments(s, q, k, v, o, e);
    uint8_t *mask = make<uint8_t>((size_t)n_row * s.n_kblk);
    expect(prism_plan_mask_cuda(&e, mask, 0), "mask");
    expect(prism_plan_from_mask_cuda(&e, mask, make<int32_t>(1), 0), "from mask");
    int32_t zero[2] = {};
    prism_cu_attend a = {s, q, k, v, o};
    a.lse = make<float>((size_t)n_q * H), a.lse_stride_token = H, a.lse_stride_head = 1, a.row_ptr = e.row_ptr,
    a.index = e.index, a.order = e.order;
    a.ticket = make(2, zero), a.scale = .1f, a.block_size = 128;
    a.scratch_bytes = prism_attend_scratch_bytes(&s, 128), a.scratch = make<char>(a.scratch_bytes + 1);
    expect(prism_attend_sm90(&a, 0), "attend_sm90");
    expect(prism_attend_sm80(&a, 0), "attend_sm80");
    if (n_q < 500) /* slow, and many shared-memory accesses: racecheck would take minutes */
        expect(prism_attend_any(&a, 0), "attend_any");
    a.fp8_image = make<char>(prism_fp8_image_bytes(&s));
    expect(prism_attend_cuda(&a, 0, nullptr), "attend_fp8");
    a.index = nullptr, a.order = nullptr, a.init_o = random_bf16((size_t)n_q * H * d), a.init_lse = a.lse;
    expect(prism_attend_sm90(&a, 0), "attend_sm90 dense");
    expect(prism_attend_sm80(&a, 0), "attend_sm80 dense");
    expect(prism_attend_cuda(&a, 0, nullptr), "attend_fp8 dense");
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* one long row set: many images, long lists */
        run(200, 160000, 64, 0);
    } else {
        run(1000, 1000, 128, 0);
        run(300, 1111, 64, 0);
        run(100, 2100, 128, 0); /* rows that are split */
        run(515, 777, 128, 16);
        run(1, 1, 128, 0);
        run_estimate(700, 1500, 256, 2);
        run_estimate(700, 1500, 192, 2);
        run_estimate(700, 1500, 128, 1);
    }
    printf("failed: %d\n", failed);
    return failed != 0;
}
