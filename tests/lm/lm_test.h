/* What the tests of the runner and of the bench share. cmocka wants its includes in this order. */
#ifndef LM_TEST_H
#define LM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lm/error.h"

/* A call that must succeed: its error's text is what a failing test should show. */
#define ok(call)                                                                                                       \
    do {                                                                                                               \
        lm_error err = {0};                                                                                            \
        if (!(call))                                                                                                   \
            fail_msg("%s: %s", #call, err.text);                                                                       \
    } while (0)

/* A call that must fail with this kind and a sentence that contains part. */
#define refused(call, wanted_kind, part)                                                                               \
    do {                                                                                                               \
        lm_error err = {0};                                                                                            \
        assert_false(call);                                                                                            \
        if (err.kind != (wanted_kind) || !strstr(err.text, part))                                                      \
            fail_msg("%s: kind %d, \"%s\"; wanted kind %d, \"%s\"", #call, (int)err.kind, err.text,                    \
                     (int)(wanted_kind), part);                                                                        \
    } while (0)

#endif
