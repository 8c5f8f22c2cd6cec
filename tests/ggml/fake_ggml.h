/* Operation codes of the stand-in; node_codes() uses the same. */
#ifndef TESTS_FAKE_GGML_H
#define TESTS_FAKE_GGML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FAKE_NONE = 0,
    FAKE_VIEW = 11,
    FAKE_RESHAPE,
    FAKE_PERMUTE,
    FAKE_TRANSPOSE,
    FAKE_CONT,
    FAKE_SCALE,
    FAKE_RMS_NORM,
    FAKE_MUL_MAT,
    FAKE_ROPE,
    FAKE_FLASH_ATTN_EXT
};

#endif
