/* cmocka, with the headers that it wants included before it. */
#ifndef TESTS_RIVALS_EXPECT_H
#define TESTS_RIVALS_EXPECT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_ok(call) assert_int_equal(call, PRISM_OK)

#endif
