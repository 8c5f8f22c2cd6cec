/* A model in several GGUF files: opened by any part, and refused in plain words where a part is missing or another's. */
#include "lm_test.h"

#include "lm/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARTS = 3 };

static char folder[64];

static const char *path_of(const char *name)
{
    static char path[2][160];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* The part's tensor t0, t1, ... is two floats: its number, and 7. */
static void write_part(const char *name, uint32_t index, uint32_t count, uint32_t n_tensor, const char *tensor)
{
    const float data[2] = {(float)index, 7};
    lm_gguf_writer *w = lm_gguf_writer_create();
    lm_gguf_put_u32(w, "split.no", index);
    lm_gguf_put_u32(w, "split.count", count);
    lm_gguf_put_u32(w, "split.tensors.count", n_tensor);
    if (index == 0)
        lm_gguf_put_string(w, "general.architecture", "qwen3");
    lm_gguf_put_tensor(w, tensor, LM_F32, 1, (const int64_t[]){2});
    ok(lm_gguf_writer_start(w, path_of(name), &err));
    ok(lm_gguf_writer_data(w, data, sizeof data, &err));
    ok(lm_gguf_writer_finish(w, &err));
    lm_gguf_writer_free(w);
}

static const char *const names[PARTS] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/lm-split-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    for (uint32_t i = 0; i < PARTS; i++)
        write_part(names[i], i, PARTS, PARTS, (const char *[]){"t0", "t1", "t2"}[i]);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < PARTS; i++)
        unlink(path_of(names[i]));
    return rmdir(folder);
}

static void test_any_part(void **state)
{
    (void)state;
    for (int opened = 0; opened < PARTS; opened++) {
        lm_gguf *g;
        char arch[16];
        ok(lm_gguf_open(path_of(names[opened]), &g, &err));
        ok(lm_gguf_string(g, "general.architecture", arch, sizeof arch, &err));
        assert_string_equal(arch, "qwen3");
        assert_int_equal(lm_gguf_tensor_count(g), PARTS);
        for (int i = 0; i < PARTS; i++) {
            const lm_tensor *t = lm_gguf_tensor(g, (const char *[]){"t0", "t1", "t2"}[i]);
            assert_true(t && t == lm_gguf_tensor_at(g, (size_t)i));
            assert_true(((const float *)t->data)[0] == (float)i && ((const float *)t->data)[1] == 7);
        }
        lm_gguf_close(g);
    }
}

static void refuse(const char *name, const char *part)
{
    lm_gguf *g = NULL;
    refused(lm_gguf_open(path_of(name), &g, &err), LM_ERROR_INPUT, part);
    assert_null(g);
}

static void test_missing(void **state)
{
    (void)state;
    unlink(path_of(names[1]));
    for (int opened = 0; opened < PARTS; opened++)
        refuse(names[opened], opened == 1 ? "cannot be read" : "m-00002-of-00003.gguf: is missing");
    refuse(names[0], "llama-gguf-split --merge");
}

static void test_misnamed(void **state)
{
    (void)state;
    rename(path_of(names[1]), path_of("other.gguf"));
    refuse("other.gguf", "is part 2 of 3, so its name must end in \"-00002-of-00003.gguf\"");
    refuse("other.gguf", "llama-gguf-split --merge");
    unlink(path_of("other.gguf"));
}

static void test_others(void **state)
{
    (void)state;
    write_part(names[1], 1, PARTS, PARTS, "t0");
    refuse(names[0], "tensor t0 comes twice");
    write_part(names[1], 2, PARTS, PARTS, "t1");
    refuse(names[0], "file 2 of 3 says that it is part 3 of 3");
    write_part(names[1], 1, PARTS, 4, "t1");
    refuse(names[0], "of 4 tensors where the first says 3");
    for (uint32_t i = 0; i < PARTS; i++)
        write_part(names[i], i, PARTS, 4, (const char *[]){"t0", "t1", "t2"}[i]);
    refuse(names[0], "its parts hold 3 tensors, but split.tensors.count is 4");
    write_part(names[1], 3, PARTS, PARTS, "t1");
    refuse(names[1], "split.no is 3, but split.count is 3");
    write_part(names[1], 1, 100000, PARTS, "t1");
    refuse(names[1], "split.count is 100000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_any_part, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_missing, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_misnamed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_others, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
