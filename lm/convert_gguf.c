/* A GGUF file of any types into one of another type: every key and tensor travels, whatever model it is. */
#include "convert_internal.h"

#include <string.h>

/* Keys about the file itself: the new one has its own. */
static bool is_of_the_file(const char *key)
{
    static const char *const keys[] = {"general.file_type", "general.quantization_version", "general.alignment",
                                       "split.no",          "split.count",                  "split.tensors.count"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return false;
}

static void put_keys(lm_gguf_writer *w, const lm_gguf *g, const lm_convert_options *o)
{
    const struct {
        const char *key, *text; /* NULL: not given, stays as it is */
    } given[] = {{"general.name", o->name}, {"general.license", o->license}, {"general.description", o->description}};
    const size_t n_given = sizeof given / sizeof *given;
    for (size_t i = 0; i < lm_gguf_value_count(g); i++) {
        const lm_gguf_value *v = lm_gguf_value_at(g, i);
        bool kept = !is_of_the_file(v->key);
        for (size_t j = 0; j < n_given; j++)
            kept = kept && !(given[j].text && strcmp(v->key, given[j].key) == 0);
        if (kept)
            lm_gguf_put_value(w, v);
    }
    for (size_t j = 0; j < n_given; j++)
        if (given[j].text)
            lm_gguf_put_string(w, given[j].key, given[j].text);
    lm_gguf_put_u32(w, "general.file_type", (uint32_t)lm_dtypes[o->type].file);
    lm_gguf_put_u32(w, "general.quantization_version", 2);
}

static bool convert(lm_gguf_writer *w, const lm_gguf *g, const char *from, const char *path,
                    const lm_convert_options *o, lm_error *err)
{
    const size_t n = lm_gguf_tensor_count(g);
    const lm_interleave as_it_is = {0};
    put_keys(w, g, o);
    for (size_t i = 0; i < n; i++) {
        const lm_tensor *t = lm_gguf_tensor_at(g, i);
        lm_gguf_put_tensor(w, t->name, lm_convert_type(o, t), t->n_dim, t->dim);
    }
    bool ok = lm_gguf_writer_start(w, path, err);
    for (size_t i = 0; ok && i < n; i++) {
        const lm_tensor *t = lm_gguf_tensor_at(g, i);
        ok = lm_convert_tensor(w, t, lm_convert_type(o, t), &as_it_is, from, err);
    }
    return ok && lm_gguf_writer_finish(w, err);
}

bool lm_convert_gguf(const char *from, const char *path, const lm_convert_options *options, lm_error *err)
{
    lm_gguf *g;
    if (!lm_gguf_open(from, &g, err))
        return false;
    lm_gguf_writer *w = lm_gguf_writer_create();
    const bool ok = w ? convert(w, g, from, path, options, err) : lm_fail(err, LM_ERROR_MEMORY, "%s: no memory", path);
    lm_gguf_writer_free(w);
    lm_gguf_close(g);
    return ok;
}
