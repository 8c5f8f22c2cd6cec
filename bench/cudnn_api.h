/*
 * bench/cudnn_api.h - the part of cuDNN's backend interface that bench/cudnn.c calls.
 *
 * cuDNN's headers come with cuDNN, which few machines have, so what is used of them stands here. Names are those of
 * cudnn_graph.h without CUDNN_; its values are frozen within version 9.
 */
#ifndef BENCH_CUDNN_API_H
#define BENCH_CUDNN_API_H

#include <stddef.h>
#include <stdint.h>

enum { STATUS_SUCCESS = 0, STATUS_NOT_SUPPORTED = 3000 }; /* cudnnStatus_t */

enum { /* cudnnBackendDescriptorType_t */
       BACKEND_POINTWISE_DESCRIPTOR = 0,
       BACKEND_ENGINECFG_DESCRIPTOR = 3,
       BACKEND_ENGINEHEUR_DESCRIPTOR = 4,
       BACKEND_EXECUTION_PLAN_DESCRIPTOR = 5,
       BACKEND_OPERATION_POINTWISE_DESCRIPTOR = 13,
       BACKEND_OPERATIONGRAPH_DESCRIPTOR = 15,
       BACKEND_VARIANT_PACK_DESCRIPTOR = 16,
       BACKEND_TENSOR_DESCRIPTOR = 17,
       BACKEND_MATMUL_DESCRIPTOR = 18,
       BACKEND_OPERATION_MATMUL_DESCRIPTOR = 19,
       BACKEND_REDUCTION_DESCRIPTOR = 21,
       BACKEND_OPERATION_REDUCTION_DESCRIPTOR = 22
};

enum { /* cudnnBackendAttributeName_t */
       ATTR_POINTWISE_MODE = 0,
       ATTR_POINTWISE_MATH_PREC = 1,
       ATTR_POINTWISE_AXIS = 9,
       ATTR_ENGINEHEUR_MODE = 200,
       ATTR_ENGINEHEUR_OPERATION_GRAPH = 201,
       ATTR_ENGINEHEUR_RESULTS = 202,
       ATTR_EXECUTION_PLAN_ENGINE_CONFIG = 401,
       ATTR_EXECUTION_PLAN_WORKSPACE_SIZE = 402,
       ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR = 750,
       ATTR_OPERATION_POINTWISE_XDESC = 751,
       ATTR_OPERATION_POINTWISE_BDESC = 752,
       ATTR_OPERATION_POINTWISE_YDESC = 753,
       ATTR_OPERATION_POINTWISE_TDESC = 758,
       ATTR_OPERATIONGRAPH_HANDLE = 800,
       ATTR_OPERATIONGRAPH_OPS = 801,
       ATTR_TENSOR_BYTE_ALIGNMENT = 900,
       ATTR_TENSOR_DATA_TYPE = 901,
       ATTR_TENSOR_DIMENSIONS = 902,
       ATTR_TENSOR_STRIDES = 903,
       ATTR_TENSOR_UNIQUE_ID = 906,
       ATTR_TENSOR_IS_VIRTUAL = 907,
       ATTR_TENSOR_IS_BY_VALUE = 908,
       ATTR_VARIANT_PACK_UNIQUE_IDS = 1000,
       ATTR_VARIANT_PACK_DATA_POINTERS = 1001,
       ATTR_VARIANT_PACK_WORKSPACE = 1003,
       ATTR_MATMUL_COMP_TYPE = 1500,
       ATTR_OPERATION_MATMUL_ADESC = 1520,
       ATTR_OPERATION_MATMUL_BDESC = 1521,
       ATTR_OPERATION_MATMUL_CDESC = 1522,
       ATTR_OPERATION_MATMUL_DESC = 1523,
       ATTR_REDUCTION_OPERATOR = 1600,
       ATTR_REDUCTION_COMP_TYPE = 1601,
       ATTR_OPERATION_REDUCTION_XDESC = 1610,
       ATTR_OPERATION_REDUCTION_YDESC = 1611,
       ATTR_OPERATION_REDUCTION_DESC = 1612
};

enum { /* cudnnBackendAttributeType_t */
       TYPE_HANDLE = 0,
       TYPE_DATA_TYPE = 1,
       TYPE_BOOLEAN = 2,
       TYPE_INT64 = 3,
       TYPE_VOID_PTR = 6,
       TYPE_HEUR_MODE = 8,
       TYPE_POINTWISE_MODE = 14,
       TYPE_BACKEND_DESCRIPTOR = 15,
       TYPE_REDUCTION_OPERATOR_TYPE = 18
};

enum { DATA_FLOAT = 0, DATA_HALF = 2, DATA_INT32 = 4, DATA_BFLOAT16 = 9, DATA_BOOLEAN = 11 }; /* cudnnDataType_t */

enum { /* cudnnPointwiseMode_t */
       POINTWISE_ADD = 0,
    POINTWISE_MUL = 1,
       POINTWISE_DIV = 6,
       POINTWISE_SUB = 9,
       POINTWISE_EXP = 13,
    POINTWISE_LOG = 15,
       POINTWISE_CMP_GE = 303,
       POINTWISE_GEN_INDEX = 501,
       POINTWISE_BINARY_SELECT = 601
};

enum { REDUCE_TENSOR_ADD = 0, REDUCE_TENSOR_MAX = 3 }; /* cudnnReduceTensorOp_t */

enum { HEUR_MODE_A = 3 }; /* cudnnBackendHeurMode_t */

/* Handles and descriptors are opaque pointers; int stands for the enumerations. */
typedef struct cudnn_functions {
    size_t (*version)(void); /* 91900: 9.19.0 */
    const char *(*status_name)(int status);
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*set_stream)(void *handle, void *stream);
    int (*create_descriptor)(int type, void **descriptor);
    int (*destroy_descriptor)(void *descriptor);
    int (*set_attribute)(void *descriptor, int name, int type, int64_t count, const void *values);
    int (*get_attribute)(void *descriptor, int name, int type, int64_t wanted, int64_t *count, void *values);
    int (*finalize)(void *descriptor);
    int (*execute)(void *handle, void *plan, void *variant_pack);
} cudnn_functions;

#endif
