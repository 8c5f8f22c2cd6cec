/* prism convert */
#include "cli.h"
#include "lm/convert.h"

typedef struct convert_args {
    const char *model, *out;
    int32_t type;
    lm_convert_options options;
} convert_args;

#define AT(field) .offset = offsetof(convert_args, field)

static const char *const type_names[] = {"q8_0", "f16", "bf16", "f32"};
static const lm_dtype types[] = {LM_Q8_0, LM_F16, LM_BF16, LM_F32};

static const cli_option rows[] = {
    {"model", "MODEL", "a Hugging Face directory, or a GGUF file", CLI_TEXT, 'm', AT(model)},
    {"out", "FILE", "the file to write, which appears complete or not at all; - is stdout", CLI_TEXT, 'o', AT(out)},
    {"type", "T", "of the matrices: q8_0 (default), f16, bf16 or f32; norms and biases are always f32", CLI_CHOICE,
     AT(type), .choices = type_names, .max = 4},
    {"name", "NAME", "general.name (the model's)", CLI_TEXT, AT(options.name)},
    {"license", "TEXT", "general.license", CLI_TEXT, AT(options.license)},
    {"description", "TEXT", "general.description", CLI_TEXT, AT(options.description)},
};

static const cli_command command = {
    .name = "convert",
    .intro = "usage: prism convert -m MODEL -o FILE.gguf [options]\n\n"
             "Turns a Hugging Face directory (config.json, safetensors, tokenizer.json) of a Llama, Mistral, Qwen2\n"
             "or Qwen3 model into one GGUF file, tokenizer included, that this command and llama.cpp open. From a GGUF file\n"
             "of any types, or any part of one in several files, it writes one of the type asked for.\n\n",
    .own = rows,
    .n_own = sizeof rows / sizeof *rows,
};

int cli_convert(int argc, char **argv)
{
    static const char *const gguf[] = {".gguf", NULL};
    convert_args args = {0};
    bool helped = false;
    int code = cli_parse(&command, argc, argv, &args, NULL, &helped);
    if (code || helped)
        return code;
    if (!args.model || !args.out)
        return cli_fail(EXIT_USAGE, "give the model with -m and the file to write with -o");
    if (!cli_is_stdout(args.out) && !cli_has_ending(args.out, gguf)) /* and so no part of a directory */
        return cli_fail(EXIT_USAGE, "-o '%s': give a name that ends in .gguf", args.out);
    const char *const inputs[] = {args.model, NULL};
    code = cli_check_output(args.out, inputs);
    if (code)
        return code;
    lm_error err;
    args.options.type = types[args.type];
    return lm_convert(args.model, args.out, &args.options, &err) ? EXIT_DONE : cli_fail_lm(&err);
}
