/* cmocka, with the headers that it wants included before it. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "prism_attn/prism.h"

#define assert_ok(call) assert_int_equal(call, PRISM_OK)
#define assert_near(got, want, bound)                                                                                  \
    do {                                                                                                               \
        const double got_ = (got), want_ = (want);                                                                     \
        if (!(got_ - want_ <= (bound) && want_ - got_ <= (bound)))                                                     \
            fail_msg("%s = %.9g, want %.9g within %.3g", #got, got_, want_, (double)(bound));                          \
    } while (0)

#endif
