/* Tensor views. */
#include <stdbool.h>
#include <string.h>

#include "prism_attn/prism.h"

size_t prism_dtype_bytes(prism_dtype dtype)
{
    return dtype == PRISM_F32 ? 4 : dtype == PRISM_F16 || dtype == PRISM_BF16 ? 2 : 0;
}

prism_tensor prism_tensor_token_major(void *data, prism_dtype dtype, int64_t n_token, int64_t n_head, int64_t d)
{
    return (prism_tensor){.data = data,
                          .dtype = dtype,
                          .stride_seq = n_token * n_head * d,
                          .stride_token = n_head * d,
                          .stride_head = d,
                          .stride_dim = 1};
}

prism_tensor prism_tensor_head_major(void *data, prism_dtype dtype, int64_t n_token, int64_t n_head, int64_t d)
{
    return (prism_tensor){.data = data,
                          .dtype = dtype,
                          .stride_seq = n_token * n_head * d,
                          .stride_token = d,
                          .stride_head = n_token * d,
                          .stride_dim = 1};
}

/* DLPack's DLTensor, whose layout is a frozen ABI (github.com/dmlc/dlpack, include/dlpack/dlpack.h). */
typedef struct dl_tensor {
    void *data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t type_code, type_bits;
    uint16_t type_lanes;
    int64_t *shape;
    int64_t *strides; /* elements; NULL: row-major */
    uint64_t byte_offset;
} dl_tensor;

enum { dl_cpu = 1, dl_float = 2, dl_bfloat = 4 };

static bool find_dtype(const dl_tensor *x, prism_dtype *dtype)
{
    if (x->type_lanes != 1)
        return false;
    if (x->type_code == dl_float && (x->type_bits == 32 || x->type_bits == 16))
        *dtype = x->type_bits == 32 ? PRISM_F32 : PRISM_F16;
    else if (x->type_code == dl_bfloat && x->type_bits == 16)
        *dtype = PRISM_BF16;
    else
        return false;
    return true;
}

/* Reads the stride of each axis. *n_element: how many elements the tensor spans. */
static prism_status read_axes(const dl_tensor *x, int64_t stride[4], int64_t *n_element)
{
    int64_t dense = 1;
    *n_element = 1;
    for (int32_t i = x->ndim - 1; i >= 0; i--) {
        int64_t reach;
        stride[i] = x->strides ? x->strides[i] : dense;
        if (x->shape[i] < 1)
            return PRISM_ERROR_INVALID;
        if (stride[i] < 0)
            return PRISM_ERROR_UNSUPPORTED;
        if (__builtin_mul_overflow(dense, x->shape[i], &dense) ||
            __builtin_mul_overflow(stride[i], x->shape[i] - 1, &reach) ||
            __builtin_add_overflow(*n_element, reach, n_element))
            return PRISM_ERROR_INVALID;
    }
    return PRISM_OK;
}

prism_status prism_tensor_from_dlpack(const void *dl, const char *order, prism_tensor *out)
{
    const dl_tensor *x = dl;
    if (!x || !order || !out || !x->data || !x->shape || (x->ndim != 3 && x->ndim != 4) ||
        strlen(order) != (size_t)x->ndim)
        return PRISM_ERROR_INVALID;
    prism_tensor t = {0};
    if (x->device_type != dl_cpu || !find_dtype(x, &t.dtype))
        return PRISM_ERROR_UNSUPPORTED;
    int64_t stride[4];
    const prism_status status = read_axes(x, stride, &t.n_element);
    if (status)
        return status;
    uintptr_t at;
    if (__builtin_add_overflow((uintptr_t)x->data, x->byte_offset, &at))
        return PRISM_ERROR_INVALID;
    t.data = (void *)at;
    static const char axes[] = "bnhd";
    int64_t *const slot[] = {&t.stride_seq, &t.stride_token, &t.stride_head, &t.stride_dim};
    unsigned seen = 0;
    for (int32_t i = 0; i < x->ndim; i++) {
        const char *axis = strchr(axes, order[i]);
        const unsigned bit = axis ? 1u << (axis - axes) : 0;
        if (!bit || (seen & bit))
            return PRISM_ERROR_INVALID;
        seen |= bit;
        *slot[axis - axes] = stride[i];
    }
    if ((seen & 0xe) != 0xe) /* n, h and d */
        return PRISM_ERROR_INVALID;
    *out = t;
    return PRISM_OK;
}
