/* prism needle */
#include "eval/needle.h"

#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "lm/file.h"

typedef struct needle_args {
    const char *model, *text, *out;
    eval_needle_spec spec;
    int32_t count;
} needle_args;

static bool make_prompts(const needle_args *args, const lm_tokenizer *tok, const char *book, size_t n_book,
                         lm_text *json, lm_error *err)
{
    eval_needle *needles = calloc((size_t)args->count, sizeof *needles);
    bool ok = needles || lm_fail(err, LM_ERROR_MEMORY, "out of memory for %d prompts", args->count);
    for (int32_t i = 0; ok && i < args->count; i++) {
        eval_needle_spec spec = args->spec;
        spec.seed += (uint64_t)i;
        ok = eval_needle_make(&spec, tok, book, n_book, &needles[i], err);
    }
    ok = ok && eval_needle_json(needles, (size_t)args->count, json, err);
    for (int32_t i = 0; needles && i < args->count; i++)
        eval_needle_free(&needles[i]);
    free(needles);
    return ok;
}

static bool write_file(const char *path, const lm_text *text, lm_error *err)
{
    lm_writer w;
    if (!lm_writer_open(&w, path, err))
        return false;
    if (lm_writer_put(&w, text->data, text->n, err))
        return lm_writer_commit(&w, err);
    lm_writer_discard(&w);
    return false;
}

static bool read_book(const char *path, char **book, size_t *n, lm_error *err)
{
    if (!cli_read_file(path, book, n, err))
        return false;
    const size_t bad = cli_not_utf8(*book, *n);
    return bad == *n || /* JSON holds UTF-8 only */
           lm_fail(err, LM_ERROR_INPUT, "'%s' is not UTF-8: byte %zu belongs to no character", path, bad);
}

static int write_prompts(const needle_args *args)
{
    lm_error err;
    lm_model *model = NULL;
    lm_text json = {0};
    char *book = NULL;
    size_t n_book = 0;
    bool ok =
        lm_model_open(args->model, &model, &err) &&
        (lm_model_tokenizer(model) || lm_fail(&err, LM_ERROR_INPUT, "'%s' comes without a tokenizer", args->model)) &&
        (!args->text || read_book(args->text, &book, &n_book, &err)) &&
        make_prompts(args, lm_model_tokenizer(model), book, n_book, &json, &err) && write_file(args->out, &json, &err);
    const int code = ok ? EXIT_DONE : cli_fail_lm(&err);
    free(book);
    lm_text_free(&json);
    lm_model_close(model);
    return code;
}

/* --------------------------------------------------------------------------------------------- arguments ---- */

#define AT(field) .offset = offsetof(needle_args, field)

static const cli_option rows[] = {
    {"model", "MODEL", "a GGUF file or a Hugging Face directory", CLI_TEXT, 'm', AT(model)},
    {"text", "BOOK", "the haystack: a plain text file", CLI_TEXT, AT(text)},
    {"out", "FILE", "the JSON file to write; - is stdout", CLI_TEXT, 'o', AT(out)},
    {"tokens", "N", "length of a prompt (8192)", CLI_INT, AT(spec.n_token), .min = 64, .max = 1 << 24},
    {"haystack", "H", "book (default), needle or noise; the last two need no --text", CLI_CHOICE, AT(spec.haystack),
     .choices = eval_haystack_names, .max = 3},
    {"keys", "N", "needles woven in (4)", CLI_INT, AT(spec.n_key), .min = 1, .max = 1 << 16},
    {"depth", "D", "where the queried needle stands, 0 start to 1 end (0.5)", CLI_NUMBER, AT(spec.depth), .max = 1},
    {"key-type", "T", "word (default), number or uuid", CLI_CHOICE, AT(spec.key), .choices = eval_payload_names,
     .max = 3},
    {"value-type", "T", "number (default), word or uuid", CLI_CHOICE, AT(spec.value), .choices = eval_payload_names,
     .max = 3},
    {"seed", "S", "of the first prompt; each further one takes the next seed (1)", CLI_LONG,
     AT(spec.seed), .max = 0x1p53},
    {"count", "N", "prompts to write (1)", CLI_INT, AT(count), .min = 1, .max = 1 << 16},
    {"offset", "BYTE", "where in the book a prompt starts (anywhere)", CLI_LONG, AT(spec.book_offset),
     .max = 0x1p53},
};

static const cli_command command = {
    .name = "needle",
    .intro = "usage: prism needle -m MODEL --text BOOK -o FILE.json [options]\n\n"
             "Writes needle-in-a-haystack prompts with gold answers, for 'prism run --ruler-json'. The model gives\n"
             "the tokenizer that lengths are counted with.\n\n",
    .own = rows,
    .n_own = sizeof rows / sizeof *rows,
};

int cli_needle(int argc, char **argv)
{
    needle_args args = {.count = 1};
    bool helped = false;
    eval_needle_spec_init(&args.spec);
    int code = cli_parse(&command, argc, argv, &args, NULL, &helped);
    if (code || helped)
        return code;
    if (!args.model || !args.out)
        return cli_fail(EXIT_USAGE, "give a model with -m and the file to write with -o");
    if (args.spec.haystack == EVAL_HAYSTACK_BOOK && !args.text)
        return cli_fail(EXIT_USAGE, "a book haystack needs --text");
    code = cli_check_output(args.out, (const char *const[]){args.model, args.text ? args.text : args.model, NULL});
    return code ? code : write_prompts(&args);
}
