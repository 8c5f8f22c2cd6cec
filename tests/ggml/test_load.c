/*
 * Loads the plug-in into a stand-in for ggml, from a library that global look-ups do not see, as Python does.
 * usage: test_ggml_load FAKE_GGML PLUGIN     0: loaded, and nodes went where they belong; 3: refused
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node.h"

typedef struct fake {
    void *(*load)(const char *);
    void *(*start)(void *);
    int (*compute)(void *, void **, int);
    void (*release)(void *);
    int (*n_computed)(void);
} fake;

static void *symbol(void *handle, const char *name)
{
    void *address = dlsym(handle, name);
    if (!address) {
        fprintf(stderr, "no %s\n", name);
        exit(1);
    }
    return address;
}

static fake open_fake(const char *path)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    void *const address[] = {symbol(handle, "fake_load"), symbol(handle, "fake_start"), symbol(handle, "fake_compute"),
                             symbol(handle, "fake_free"), symbol(handle, "fake_n_computed")};
    fake f;
    memcpy(&f, address, sizeof f);
    return f;
}

static int failed;

static void expect(bool is_true, const char *what)
{
    if (!is_true) {
        fprintf(stderr, "FAILED: %s\n", what);
        failed = 1;
    }
}

static bool always(void *data)
{
    ++*(int *)data;
    return true;
}

static void check_backend(const fake *f, const ggml_backend_reg *reg)
{
    const ggml_backend_device *device = reg->get_device((void *)reg, 0);
    void *backend = f->start((void *)device), *second = f->start((void *)device);
    expect(backend && second, "two backends start");
    node n;
    const node_shape shape = {.d = 64,
                              .n_head = 2,
                              .n_kv_head = 1,
                              .n_stream = 1,
                              .n_cell = 512,
                              .type = GGML_TYPE_F16,
                              .n_sequence = 1,
                              .sequence = {{.n_old = 100, .n_new = 64, .seed = 1}}};
    node_make(&n, &shape);
    expect(device->supports_op((void *)device, &n.out), "the node is claimed");
    n.out.flags = GGML_FLAG_COMPUTE;
    void *nodes[] = {&n.q_view, &n.q, &n.out};
    expect(f->compute(backend, nodes, 3) == 0 && f->n_computed() == 0, "a causal node is computed by the plug-in");
    expect(node_error(&n, 0) < 2e-5, "its output is attention");
    ((uint16_t *)n.mask.data)[0] = 0x3C00; /* a bias of 1 */
    expect(f->compute(backend, nodes, 3) == 0 && f->n_computed() == 1, "another goes to the CPU backend, alone");
    n.out.flags = 0;
    expect(f->compute(backend, nodes, 3) == 0 && f->n_computed() == 1, "nodes that are not asked for are left alone");
    n.out.flags = GGML_FLAG_COMPUTE;

    void (*set_abort)(void *, ggml_abort_fn, void *);
    void *address = reg->get_proc_address((void *)reg, "ggml_backend_set_abort_callback");
    memcpy(&set_abort, &address, sizeof set_abort);
    int asked = 0;
    set_abort(backend, always, &asked);
    expect(f->compute(backend, nodes, 3) == GGML_STATUS_ABORTED && asked == 1, "it stops when asked to");
    node_free(&n);
    f->release(backend);
    f->release(second);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const fake f = open_fake(argv[1]);
    const ggml_backend_reg *reg = f.load(argv[2]);
    if (!reg)
        return 3;
    node_codes();
    expect(f.load(argv[2]) == (const void *)reg, "loading it again changes nothing");
    check_backend(&f, reg);
    return failed;
}
