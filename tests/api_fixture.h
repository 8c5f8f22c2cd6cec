/* A good call, and what it takes to see that a bad one is refused. */
#ifndef TESTS_API_FIXTURE_H
#define TESTS_API_FIXTURE_H

#include "check.h"

enum { N = 300, HEADS = 4, KV_HEADS = 2, DIM = 32, BLOCK = 64, N_BLK = 5, ROOM = 1 << 22 };

typedef struct fixture {
    prism_ctx *ctx;
    prism_options options;
    prism_bands bands;
    prism_call call;
    prism_plan *plan;
    float *q, *k, *v, *o, *lse;
    void *workspace;
} fixture;

int set_up(void **state);
int tear_down(void **state);
#define test_with(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* The call fails with this status on every door that looks at what is wrong, says why, and writes nothing. */
enum door { DOOR_BYTES = 1, DOOR_PLAN = 2, DOOR_ATTEND = 4, DOOR_ATTENTION = 8, DOOR_CREATE = 16, DOOR_MASK = 32 };
enum { ALL_DOORS = 63, DATA_DOORS = DOOR_PLAN | DOOR_ATTEND | DOOR_ATTENTION, SHAPE_DOORS = ALL_DOORS };

/* The status, and that there is a sentence. */
void assert_says(const fixture *f, prism_status got, prism_status want, const char *what);
void assert_refused(fixture *f, const prism_call *c, const prism_options *o, unsigned doors, prism_status want,
                    const char *what);

#define REFUSE_CALL(change, doors, status)                                                                             \
    do {                                                                                                               \
        prism_call c = f->call;                                                                                        \
        change;                                                                                                        \
        assert_refused(f, &c, &f->options, doors, status, #change);                                                    \
    } while (0)

#endif
