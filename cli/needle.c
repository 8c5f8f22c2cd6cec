/* prism needle */
#include "eval/needle.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "lm/file.h"

static const char help[] = "usage: prism needle -m MODEL --text BOOK -o FILE.json [options]\n\n"
                           "Writes needle-in-a-haystack prompts with gold answers, for 'prism run --ruler-json'. The "
                           "model gives the tokenizer\n"
                           "that lengths are counted with.\n\n"
                           "  -m, --model MODEL      a GGUF file or a Hugging Face directory\n"
                           "  --text BOOK            the haystack: a plain text file\n"
                           "  -o, --out FILE         the JSON file to write\n"
                           "  --tokens N             length of a prompt (8192)\n"
                           "  --haystack H           book (default), needle or noise; the last two need no --text\n"
                           "  --keys N               needles woven in (4)\n"
                           "  --depth D              where the queried needle stands, 0 start to 1 end (0.5)\n"
                           "  --key-type T           word (default), number or uuid\n"
                           "  --value-type T         number (default), word or uuid\n"
                           "  --seed S               of the first prompt; each further one takes the next seed (1)\n"
                           "  --count N              prompts to write (1)\n"
                           "  --offset BYTE          where in the book a prompt starts (anywhere)\n";

enum {
    OPT_TEXT = OPT_OWN,
    OPT_TOKENS,
    OPT_HAYSTACK,
    OPT_KEYS,
    OPT_DEPTH,
    OPT_KEY,
    OPT_VALUE,
    OPT_SEED,
    OPT_COUNT,
    OPT_OFFSET
};

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

/* What JSON can hold: UTF-8, as PCRE2 and other readers will insist. */
static bool is_utf8(const char *text, size_t n, size_t *bad)
{
    for (size_t i = 0; i < n;) {
        const uint8_t c = (uint8_t)text[i];
        const int length = c < 0x80                ? 1
                           : c >= 0xc2 && c < 0xe0 ? 2
                           : c >= 0xe0 && c < 0xf0 ? 3
                           : c >= 0xf0 && c < 0xf5 ? 4
                                                   : 0;
        bool ok = length && length <= (int)(n - i < 4 ? n - i : 4);
        for (int k = 1; ok && k < length; k++)
            ok = ((uint8_t)text[i + (size_t)k] & 0xc0) == 0x80;
        *bad = i;
        if (!ok)
            return false;
        i += (size_t)length;
    }
    return true;
}

static bool read_book(const char *path, char **book, size_t *n, lm_error *err)
{
    size_t bad;
    if (!cli_read_file(path, book, n, err))
        return false;
    return is_utf8(*book, *n, &bad) ||
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

static bool choose(const char *name, const char *text, const char *const words[3], int *out)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, words[i])) {
            *out = i;
            return true;
        }
    cli_fail(EXIT_USAGE, "%s '%s': %s, %s or %s", name, text, words[0], words[1], words[2]);
    return false;
}

static bool parse_number(const char *name, const char *text, double max, double *out)
{
    char *end;
    *out = strtod(text, &end);
    if (end != text && !*end && *out >= 0 && *out <= max)
        return true;
    cli_fail(EXIT_USAGE, "%s '%s': a number from 0 to %g is wanted", name, text, max);
    return false;
}

static bool parse_option(needle_args *a, int o)
{
    static const char *const haystacks[] = {"book", "needle", "noise"}, *const payloads[] = {"word", "number", "uuid"};
    int choice = 0;
    double number = 0;
    bool ok = true;
    switch (o) {
    case 'm': a->model = optarg; break;
    case 'o': a->out = optarg; break;
    case OPT_TEXT: a->text = optarg; break;
    case OPT_TOKENS: ok = cli_parse_int("--tokens", optarg, 64, 1 << 24, &a->spec.n_token); break;
    case OPT_KEYS: ok = cli_parse_int("--keys", optarg, 1, 1 << 16, &a->spec.n_key); break;
    case OPT_COUNT: ok = cli_parse_int("--count", optarg, 1, 1 << 16, &a->count); break;
    case OPT_DEPTH: ok = parse_number("--depth", optarg, 1, &a->spec.depth); break;
    case OPT_HAYSTACK:
        ok = choose("--haystack", optarg, haystacks, &choice);
        a->spec.haystack = (eval_haystack)choice;
        break;
    case OPT_KEY:
        ok = choose("--key-type", optarg, payloads, &choice);
        a->spec.key = (eval_payload)choice;
        break;
    case OPT_VALUE:
        ok = choose("--value-type", optarg, payloads, &choice);
        a->spec.value = (eval_payload)choice;
        break;
    case OPT_SEED:
        ok = parse_number("--seed", optarg, 0x1p53, &number);
        a->spec.seed = (uint64_t)number;
        break;
    case OPT_OFFSET:
        ok = parse_number("--offset", optarg, 0x1p53, &number);
        a->spec.book_offset = (size_t)number;
        break;
    default: break;
    }
    return ok;
}

int cli_needle(int argc, char **argv)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"text", required_argument, NULL, OPT_TEXT},
                                            {"tokens", required_argument, NULL, OPT_TOKENS},
                                            {"haystack", required_argument, NULL, OPT_HAYSTACK},
                                            {"keys", required_argument, NULL, OPT_KEYS},
                                            {"depth", required_argument, NULL, OPT_DEPTH},
                                            {"key-type", required_argument, NULL, OPT_KEY},
                                            {"value-type", required_argument, NULL, OPT_VALUE},
                                            {"seed", required_argument, NULL, OPT_SEED},
                                            {"count", required_argument, NULL, OPT_COUNT},
                                            {"offset", required_argument, NULL, OPT_OFFSET},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    needle_args args = {.count = 1};
    eval_needle_spec_init(&args.spec);
    opterr = 0;
    for (int o; (o = getopt_long(argc, argv, ":m:o:h", options, NULL)) != -1;) {
        if (o == 'h') {
            fputs(help, stdout);
            return EXIT_DONE;
        }
        if (o == '?' || o == ':')
            return cli_bad_option(argv, "needle");
        if (!parse_option(&args, o))
            return EXIT_USAGE;
    }
    if (optind < argc)
        return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    if (!args.model || !args.out)
        return cli_fail(EXIT_USAGE, "give a model with -m and the file to write with -o");
    if (args.spec.haystack == EVAL_HAYSTACK_BOOK && !args.text)
        return cli_fail(EXIT_USAGE, "a book haystack needs --text");
    const int code =
        cli_check_output(args.out, (const char *const[]){args.model, args.text ? args.text : args.model, NULL});
    return code ? code : write_prompts(&args);
}
