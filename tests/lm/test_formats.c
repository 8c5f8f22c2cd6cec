/* safetensors and GGUF: what is written is read back, and hostile files are errors with a sentence, never crashes. */
#include "lm_test.h"

#include "lm/gguf.h"
#include "lm/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------- conversions ---- */

static void test_numbers(void **state)
{
    (void)state;
    /* Every finite float16 and bfloat16 survives the way to float and back; NaN stays NaN. */
    enum { N = 65536 };
    static uint16_t in[N], out[N];
    static float wide[N];
    for (int i = 0; i < N; i++)
        in[i] = (uint16_t)i;
    const lm_dtype types[] = {LM_F16, LM_BF16};
    for (int k = 0; k < 2; k++) {
        const int exponent = k == 0 ? 0x7c00 : 0x7f80;
        lm_to_float(types[k], in, wide, N);
        lm_from_float(types[k], wide, out, N);
        for (int i = 0; i < N; i++) {
            if ((i & exponent) == exponent && (i & ~exponent & 0x7fff))
                assert_true(isnan(wide[i]) && (out[i] & exponent) == exponent && (out[i] & ~exponent & 0x7fff));
            else
                assert_int_equal(out[i], i);
        }
    }
    lm_to_float(LM_F16, in, wide, N);
    assert_true(wide[0x3c00] == 1.0f && wide[0x0001] == 0x1p-24f && wide[0xfbff] == -65504.0f);
    /* Ties go to even, an odd count leaves a tail, and too large becomes infinity. */
    const float f[3] = {1.0f + 0x1p-11f, 1.0f + 3 * 0x1p-11f, 70000.0f};
    uint16_t h[3];
    lm_from_float(LM_F16, f, h, 3);
    assert_int_equal(h[0], 0x3c00);
    assert_int_equal(h[1], 0x3c02);
    assert_int_equal(h[2], 0x7c00);
}

static void test_q8_0(void **state)
{
    (void)state;
    float in[64] = {0}, out[64];
    uint8_t blocks[2 * 34];
    for (int i = 0; i < 32; i++)
        in[i] = (float)(i - 16) / 8.0f; /* largest magnitude 2: scale 2/127 in float16 */
    lm_from_float(LM_Q8_0, in, blocks, 64);
    lm_to_float(LM_Q8_0, blocks, out, 64);
    assert_int_equal((int8_t)blocks[2], -127);
    for (int i = 0; i < 32; i++)
        assert_true(fabsf(in[i] - out[i]) <= 1.01f / 127.0f);
    for (int i = 32; i < 64; i++)
        assert_true(out[i] == 0.0f);
}

/* The dot product with n weights, some blocks whose values are known. Returns false where it would not be finite. */
static bool check_dot(const lm_dtype_row *row, lm_dtype type, const uint8_t *packed, const float *values, int64_t n)
{
    float x[1024];
    double want = 0, size = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)((i * 37 + 11) % 64 - 32) / 32;
        want += (double)values[i] * (double)x[i];
        size += fabs((double)values[i] * (double)x[i]);
    }
    const double have = (double)lm_row_dot(type, packed, x, n);
    if (!(size < 1e37))
        return false;
    if (!(fabs(have - want) <= size * (double)n * 0x1p-24))
        fail_msg("%s: a dot product of %d is %g, wanted %g", row->name, (int)n, have, want);
    return true;
}

/* Blocks of random bytes of every type, and what the gguf package unpacked them to: record_types.py. */
static void test_types(void **state)
{
    (void)state;
    lm_gguf *g;
    ok(lm_gguf_open(LM_TEST_DATA "/types.gguf", &g, &err));
    for (int type = LM_F32 + 1; type < LM_DTYPE_COUNT; type++) {
        const lm_dtype_row *row = &lm_dtypes[type];
        if (!row->widen)
            continue;
        char name[32];
        snprintf(name, sizeof name, "%s.f32", row->name);
        const lm_tensor *packed = lm_gguf_tensor(g, row->name), *wanted = lm_gguf_tensor(g, name);
        assert_true(packed && wanted && (int)packed->dtype == type);
        const int64_t n = wanted->dim[1];
        float out[2][1024]; /* the processor's way, the baseline's */
        assert_true(n <= 1024 && packed->dim[1] == n);
        lm_to_float(packed->dtype, packed->data, out[0], n);
        row->widen(packed->data, out[1], n);
        int n_dot = 0;
        for (int64_t i = 0; i < n; i += row->block)
            n_dot += check_dot(row, packed->dtype, (const uint8_t *)packed->data + i / row->block * row->bytes,
                               (const float *)wanted->data + i, row->block);
        assert_true(n_dot > 0);
        for (int way = 0; way < 2; way++)
            for (int64_t i = 0; i < n; i++) {
                const float want = ((const float *)wanted->data)[i], have = out[way][i];
                if (isnan(want) ? !isnan(have) : memcmp(&want, &have, sizeof want) != 0)
                    fail_msg("%s, way %d, element %d: %a, wanted %a", row->name, way, (int)i, (double)have,
                             (double)want);
            }
    }
    lm_gguf_close(g);
}

/* ------------------------------------------------------------------------------------------- safetensors ---- */

static char path[64];

static const char *temporary(void)
{
    strcpy(path, "/tmp/lm-formats-XXXXXX");
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

static void test_safetensors_round_trip(void **state)
{
    (void)state;
    const uint8_t mask[3] = {1, 0, 1};
    const float out[4] = {1, -2, 3, INFINITY};
    const lm_tensor t[] = {
        {.name = "mask", .dtype = LM_U8, .n_dim = 2, .dim = {1, 3}, .data = mask, .bytes = 3},
        {.name = "out \"quoted\"", .dtype = LM_F32, .n_dim = 1, .dim = {4}, .data = out, .bytes = 16},
        {.name = "empty", .dtype = LM_F64, .n_dim = 2, .dim = {0, 5}, .data = out, .bytes = 0}};
    const char *metadata[] = {"format", "pt"};
    const char *p = temporary();
    lm_safetensors *st;
    ok(lm_safetensors_write(p, t, 3, metadata, 1, &err));
    ok(lm_safetensors_open(p, &st, &err));
    assert_int_equal(lm_safetensors_count(st), 3);
    const lm_tensor *m = lm_safetensors_find(st, "mask"), *o = lm_safetensors_find(st, "out \"quoted\"");
    assert_true(m && o && lm_safetensors_find(st, "empty") && !lm_safetensors_find(st, "none"));
    assert_memory_equal(m->data, mask, 3);
    assert_memory_equal(o->data, out, 16);
    assert_int_equal((uintptr_t)o->data % 4, 0);
    assert_int_equal(o->dim[0], 4);
    lm_safetensors_close(st);
    unlink(p);
    const lm_tensor bad = {.name = "x", .dtype = LM_F32, .n_dim = 1, .dim = {4}, .data = out, .bytes = 15};
    refused(lm_safetensors_write(p, &bad, 1, NULL, 0, &err), LM_ERROR_USAGE, "do not agree");
    assert_int_not_equal(access(p, F_OK), 0);
    refused(lm_safetensors_write("/nowhere/x.safetensors", t, 3, NULL, 0, &err), LM_ERROR_RUN, "/nowhere");
}

/* Opens header + data as a file in memory. length: of the header, 0 for the true one. */
static bool open_text(const char *header, uint64_t length, size_t n_data, lm_error *err)
{
    const size_t n = strlen(header);
    uint8_t *file = calloc(1, 8 + n + n_data);
    length = length == 0 ? n : length;
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)(length >> (8 * i));
    memcpy(file + 8, header, n);
    lm_safetensors *st = NULL;
    const bool done = lm_safetensors_open_memory(file, 8 + n + n_data, "hostile", &st, err);
    lm_safetensors_close(st);
    free(file);
    return done;
}

#define ENTRY(name, type, shape, begin, end)                                                                           \
    "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

static void test_safetensors_hostile(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        uint64_t length;
        size_t n_data;
        lm_error_kind kind;
        const char *part;
    } cases[] = {
        {"{}", (uint64_t)1 << 63, 0, LM_ERROR_INPUT, "9223372036854775808"},
        {"{}", UINT64_MAX, 0, LM_ERROR_INPUT, "header of 18446744073709551615"},
        {"{}", 3, 0, LM_ERROR_INPUT, "header"},
        {"[]", 0, 0, LM_ERROR_INPUT, "not a JSON object"},
        {"{\"a\"", 0, 0, LM_ERROR_INPUT, "invalid JSON"},
        {"{} x", 0, 0, LM_ERROR_INPUT, "more follows"},
        {"{\"a\":1}", 0, 0, LM_ERROR_INPUT, "dtype"},
        {"{" ENTRY("a", "F32", "[2]", "0", "8") "}", 0, 7, LM_ERROR_INPUT, "truncated"},
        {"{" ENTRY("a", "F32", "[2]", "0", "7") "}", 0, 8, LM_ERROR_INPUT, "needs 8 bytes"},
        {"{" ENTRY("a", "F32", "[2]", "8", "0") "}", 0, 8, LM_ERROR_INPUT, "ascending"},
        {"{" ENTRY("a", "F32", "[2]", "-8", "0") "}", 0, 8, LM_ERROR_INPUT, "ascending"},
        {"{" ENTRY("a", "F32", "[2]", "0.5", "8.5") "}", 0, 9, LM_ERROR_INPUT, "ascending"},
        {"{" ENTRY("a", "F32", "[2]", "9007199254740985", "9007199254740993") "}", 0, 8, LM_ERROR_INPUT, "a"},
        {"{" ENTRY("a", "F32", "[2]", "1e300", "1e301") "}", 0, 8, LM_ERROR_INPUT, "ascending"},
        {"{" ENTRY("a", "F32", "[-2]", "0", "8") "}", 0, 8, LM_ERROR_INPUT, "dimension 0"},
        {"{" ENTRY("a", "F32", "[4294967296,4294967296]", "0", "0") "}", 0, 8, LM_ERROR_INPUT, "overflows"},
        {"{" ENTRY("a", "F32", "[4611686018427387904]", "0", "0") "}", 0, 8, LM_ERROR_INPUT, "dimension"},
        {"{" ENTRY("a", "F32", "[1,1,1,1,1,1,1,1,1]", "0", "4") "}", 0, 8, LM_ERROR_INPUT, "more than 8"},
        {"{" ENTRY("a", "F99", "[1]", "0", "4") "}", 0, 4, LM_ERROR_UNSUPPORTED, "F99"},
        {"{" ENTRY("a", "F32", "[2]", "0", "8") "," ENTRY("b", "F32", "[2]", "4", "12") "}", 0, 12, LM_ERROR_INPUT,
         "overlap"},
        {"{" ENTRY("a", "F32", "[2]", "0", "8") "," ENTRY("a", "F32", "[1]", "8", "12") "}", 0, 12, LM_ERROR_INPUT,
         "twice"},
        {"{" ENTRY("a", "F32", "{}", "0", "8") "}", 0, 8, LM_ERROR_INPUT, "shape"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(open_text(cases[i].header, cases[i].length, cases[i].n_data, &err), cases[i].kind, cases[i].part);
    lm_safetensors *st = NULL;
    refused(lm_safetensors_open_memory("short", 5, "hostile", &st, &err), LM_ERROR_INPUT, "too few");
    refused(lm_safetensors_open("/nowhere", &st, &err), LM_ERROR_INPUT, "/nowhere");
    refused(lm_safetensors_open("/tmp", &st, &err), LM_ERROR_INPUT, "neither");
    /* Deep nesting must not exhaust the stack. */
    char *deep = malloc(100001);
    memset(deep, '[', 100000);
    deep[100000] = 0;
    refused(open_text(deep, 0, 0, &err), LM_ERROR_INPUT, "invalid JSON");
    free(deep);
    /* Not hostile: holes, empty tensors inside others, a data section that is not aligned. */
    ok(open_text("{" ENTRY("a", "F32", "[2]", "4", "12") "," ENTRY("e", "F32", "[0]", "8", "8") "}", 0, 12, &err));
}

static void test_safetensors_misaligned(void **state)
{
    (void)state;
    const char *header = "{" ENTRY("a", "F32", "[1]", "1", "5") "," ENTRY("m", "U8", "[1]", "0", "1") "} ";
    const float one = 1.0f;
    uint8_t file[256] = {(uint8_t)strlen(header)};
    memcpy(file + 8, header, strlen(header));
    memcpy(file + 8 + strlen(header) + 1, &one, 4);
    lm_safetensors *st;
    ok(lm_safetensors_open_memory(file, 8 + strlen(header) + 5, "odd", &st, &err));
    const lm_tensor *a = lm_safetensors_find(st, "a");
    assert_int_equal((uintptr_t)a->data % 4, 0);
    assert_true(*(const float *)a->data == 1.0f);
    lm_safetensors_close(st);
}

static void test_safetensors_index(void **state)
{
    (void)state;
    char **names;
    size_t n;
    const char *good = "{\"weight_map\":{\"a\":\"1.st\",\"b\":\"2.st\",\"c\":\"1.st\"}}";
    ok(lm_safetensors_index(good, strlen(good), "index", &names, &n, &err));
    assert_int_equal(n, 2);
    lm_safetensors_free_names(names, n);
    const char *escapes[] = {"{\"weight_map\":{\"a\":\"../../etc/passwd\"}}",
                             "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "{\"weight_map\":{\"a\":\"\"}}",
                             "{\"weight_map\":{\"a\":3}}"};
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
        refused(lm_safetensors_index(escapes[i], strlen(escapes[i]), "index", &names, &n, &err), LM_ERROR_INPUT, "a ");
    refused(lm_safetensors_index("{}", 2, "index", &names, &n, &err), LM_ERROR_INPUT, "weight_map");
}

/* -------------------------------------------------------------------------------------------------- GGUF ---- */

static void test_gguf_round_trip(void **state)
{
    (void)state;
    const char *p = temporary();
    const float vector[3] = {1, 2, 3};
    uint8_t blocks[4 * 34];
    float values[128];
    for (int i = 0; i < 128; i++)
        values[i] = (float)(i * 37 % 101) - 50.0f;
    lm_from_float(LM_Q8_0, values, blocks, 128);
    lm_gguf_writer *w = lm_gguf_writer_create();
    lm_gguf_put_string(w, "general.architecture", "qwen3");
    lm_gguf_put_u32(w, "u", 4000000000u);
    lm_gguf_put_f32(w, "f", 0.25f);
    lm_gguf_put_bool(w, "b", true);
    lm_gguf_put_array(w, "strings", LM_GGUF_STRING, 2);
    lm_gguf_put_array_string(w, "a\0b", 3);
    lm_gguf_put_array_string(w, "", 0);
    lm_gguf_put_array(w, "ints", LM_GGUF_I32, 2);
    lm_gguf_put_array_i32(w, -7);
    lm_gguf_put_array_i32(w, 9);
    lm_gguf_put_tensor(w, "m", LM_Q8_0, 2, (const int64_t[]){2, 64});
    lm_gguf_put_tensor(w, "v", LM_F32, 1, (const int64_t[]){3});
    ok(lm_gguf_writer_start(w, p, &err));
    ok(lm_gguf_writer_data(w, blocks, 68, &err));
    ok(lm_gguf_writer_data(w, blocks + 68, 68, &err));
    refused(lm_gguf_writer_finish(w, &err), LM_ERROR_USAGE, "v");
    ok(lm_gguf_writer_data(w, vector, 12, &err));
    ok(lm_gguf_writer_finish(w, &err));
    lm_gguf_writer_free(w);

    lm_gguf *g;
    int64_t u = 0;
    double f = 0;
    bool b = false;
    char text[16];
    ok(lm_gguf_open(p, &g, &err));
    ok(lm_gguf_int(g, "u", 0, UINT32_MAX, &u, &err));
    ok(lm_gguf_number(g, "f", &f, &err));
    ok(lm_gguf_bool(g, "b", &b, &err));
    ok(lm_gguf_string(g, "general.architecture", text, sizeof text, &err));
    assert_true(u == 4000000000 && f == 0.25 && b && strcmp(text, "qwen3") == 0);
    refused(lm_gguf_int(g, "u", 0, 5, &u, &err), LM_ERROR_INPUT, "from 0 to 5");
    refused(lm_gguf_int(g, "f", 0, 5, &u, &err), LM_ERROR_INPUT, "integer");
    refused(lm_gguf_string(g, "general.architecture", text, 5, &err), LM_ERROR_INPUT, "too long");
    const lm_gguf_value *strings = lm_gguf_value_find(g, "strings"), *ints = lm_gguf_value_find(g, "ints");
    const uint8_t *at = strings->data;
    size_t n;
    assert_memory_equal(lm_gguf_value_string(&at, &n), "a\0b", 3);
    assert_true(n == 3 && ints->n == 2 && lm_gguf_value_int(ints, 0) == -7 && lm_gguf_value_int(ints, 1) == 9);
    const lm_tensor *m = lm_gguf_tensor(g, "m"), *v = lm_gguf_tensor(g, "v");
    assert_true(m && v && m->dim[0] == 2 && m->dim[1] == 64 && m->dtype == LM_Q8_0);
    assert_memory_equal(m->data, blocks, sizeof blocks);
    assert_memory_equal(v->data, vector, sizeof vector);
    lm_gguf_close(g);

    /* Cut anywhere, the file is refused or (in the padding at its end) read; it never reads past its end. */
    FILE *file = fopen(p, "rb");
    static uint8_t bytes[4096];
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        lm_error err = {0};
        g = NULL;
        if (!lm_gguf_open_memory(part, cut, "cut", &g, &err))
            assert_true(err.kind == LM_ERROR_INPUT && err.text[0]);
        else
            assert_true(cut + 32 > size);
        lm_gguf_close(g);
        free(part);
    }
    unlink(p);
}

/* A GGUF file put together by hand. */
typedef struct bytes {
    uint8_t data[1024];
    size_t n;
} bytes;

static void put(bytes *b, uint64_t value, int n)
{
    for (int i = 0; i < n; i++)
        b->data[b->n++] = (uint8_t)(value >> (8 * i));
}

static void put_text(bytes *b, const char *text)
{
    put(b, strlen(text), 8);
    memcpy(b->data + b->n, text, strlen(text));
    b->n += strlen(text);
}

static void header(bytes *b, uint32_t version, uint64_t n_tensor, uint64_t n_value)
{
    memcpy(b->data, "GGUF", 4);
    b->n = 4;
    put(b, version, 4);
    put(b, n_tensor, 8);
    put(b, n_value, 8);
}

static void tensor(bytes *b, const char *name, uint64_t d0, uint64_t d1, uint32_t type, uint64_t offset)
{
    put_text(b, name);
    put(b, 2, 4);
    put(b, d0, 8);
    put(b, d1, 8);
    put(b, type, 4);
    put(b, offset, 8);
}

static bool open_hand(const bytes *b, size_t extra, lm_error *err)
{
    uint8_t *file = calloc(1, b->n + extra + 1);
    memcpy(file, b->data, b->n);
    lm_gguf *g = NULL;
    const bool done = lm_gguf_open_memory(file, b->n + extra, "hostile", &g, err);
    lm_gguf_close(g);
    free(file);
    return done;
}

static void test_gguf_hostile_header(void **state)
{
    (void)state;
    bytes b;
    header(&b, 3, (uint64_t)1 << 63, 0);
    refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "9223372036854775808 tensors");
    header(&b, 3, 0, (uint64_t)1 << 63);
    refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "more than its");
    header(&b, 1, 0, 0);
    refused(open_hand(&b, 64, &err), LM_ERROR_UNSUPPORTED, "version 1");
    header(&b, 0x03000000, 0, 0);
    refused(open_hand(&b, 64, &err), LM_ERROR_UNSUPPORTED, "big-endian");
    b.data[0] = 'X';
    refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "not a GGUF");
    header(&b, 3, 0, 1); /* a key of 2^63 bytes */
    put(&b, (uint64_t)1 << 63, 8);
    refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "9223372036854775808 bytes");
    for (int type = 0; type < 9; type += 8) { /* an array of 2^61 u8, of strings */
        header(&b, 3, 0, 1);
        put_text(&b, "key");
        put(&b, LM_GGUF_ARRAY, 4);
        put(&b, (uint64_t)type, 4);
        put(&b, (uint64_t)1 << 61, 8);
        refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "claims 2305843009213693952");
    }
    header(&b, 3, 0, 1); /* arrays of arrays */
    put_text(&b, "key");
    put(&b, LM_GGUF_ARRAY, 4);
    put(&b, LM_GGUF_ARRAY, 4);
    put(&b, 1, 8);
    refused(open_hand(&b, 64, &err), LM_ERROR_UNSUPPORTED, "arrays of arrays");
    header(&b, 3, 0, 1);
    put_text(&b, "key");
    put(&b, 99, 4);
    refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "unknown value type 99");
    header(&b, 3, 0, 2);
    for (int i = 0; i < 2; i++) {
        put_text(&b, "key");
        put(&b, LM_GGUF_U8, 4);
        put(&b, 1, 1);
    }
    refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "key comes twice");
    const uint32_t alignments[] = {0, 7, 48, 1u << 31};
    for (int i = 0; i < 4; i++) {
        header(&b, 3, 0, 1);
        put_text(&b, "general.alignment");
        put(&b, LM_GGUF_U32, 4);
        put(&b, alignments[i], 4);
        refused(open_hand(&b, 64, &err), LM_ERROR_INPUT, "general.alignment");
    }
}

static void test_gguf_hostile_tensors(void **state)
{
    (void)state;
    static const struct {
        uint64_t d0, d1;
        uint32_t type;
        uint64_t offset;
        lm_error_kind kind;
        const char *part;
    } cases[] = {
        {8, 1, 0, 0, LM_OK, ""},
        {8, 2, 0, 0, LM_ERROR_INPUT, "run past the end"},
        {8, 1, 0, 32, LM_ERROR_INPUT, "run past the end"},
        {8, 1, 0, (uint64_t)1 << 63, LM_ERROR_INPUT, "run past the end"},
        {8, 1, 0, UINT64_MAX - 31, LM_ERROR_INPUT, "run past the end"},
        {4, 1, 0, 4, LM_ERROR_INPUT, "no multiple"},
        {(uint64_t)1 << 63, 1, 0, 0, LM_ERROR_INPUT, "overflows"},
        {(uint64_t)1 << 32, (uint64_t)1 << 32, 0, 0, LM_ERROR_INPUT, "overflows"},
        {31, 1, 8, 0, LM_ERROR_INPUT, "divide by 32"},
        {255, 1, 12, 0, LM_ERROR_INPUT, "divide by 256"},
        {256, 1, 16, 0, LM_ERROR_UNSUPPORTED, "IQ2_XXS (16) is not read; llama-quantize"},
        {8, 1, 4000000000u, 0, LM_ERROR_UNSUPPORTED, "4000000000"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b;
        header(&b, 3, 1, 0);
        tensor(&b, "t", cases[i].d0, cases[i].d1, cases[i].type, cases[i].offset);
        b.n = (b.n + 31) / 32 * 32;
        if (cases[i].kind == LM_OK)
            ok(open_hand(&b, 32, &err));
        else
            refused(open_hand(&b, 32, &err), cases[i].kind, cases[i].part);
    }
    bytes b;
    header(&b, 3, 2, 0);
    tensor(&b, "a", 16, 1, 0, 0);
    tensor(&b, "b", 8, 1, 0, 32);
    refused(open_hand(&b, 256, &err), LM_ERROR_INPUT, "overlap");
    header(&b, 3, 2, 0);
    tensor(&b, "a", 8, 1, 0, 0);
    tensor(&b, "a", 8, 1, 0, 32);
    refused(open_hand(&b, 256, &err), LM_ERROR_INPUT, "a comes twice");
    header(&b, 3, 1, 0);
    put_text(&b, "t");
    put(&b, 5, 4);
    refused(open_hand(&b, 256, &err), LM_ERROR_INPUT, "5 dimensions");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_q8_0),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_safetensors_round_trip),
        cmocka_unit_test(test_safetensors_hostile),
        cmocka_unit_test(test_safetensors_misaligned),
        cmocka_unit_test(test_safetensors_index),
        cmocka_unit_test(test_gguf_round_trip),
        cmocka_unit_test(test_gguf_hostile_header),
        cmocka_unit_test(test_gguf_hostile_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
