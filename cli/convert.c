/* prism convert */
#include <string.h>

#include "cli.h"
#include "lm/convert.h"

static const char help[] =
    "usage: prism convert -m DIRECTORY -o FILE.gguf [options]\n\n"
    "Turns a Hugging Face directory (config.json, safetensors, tokenizer.json) of the Qwen3 or Llama 3 family into "
    "one\n"
    "GGUF file, tokenizer included, that this command and llama.cpp open.\n\n"
    "  -m, --model DIRECTORY  the model\n"
    "  -o, --out FILE         the file to write; it appears complete or not at all\n"
    "  --type T               of the matrices: q8_0 (default), f16, bf16 or f32; norms and biases are always f32\n"
    "  --name NAME            general.name (the directory's)\n"
    "  --license TEXT         general.license\n"
    "  --description TEXT     general.description\n";

enum { OPT_TYPE = OPT_OWN, OPT_NAME, OPT_LICENSE, OPT_DESCRIPTION };

static bool find_type(const char *name, lm_dtype *type)
{
    static const struct {
        const char *name;
        lm_dtype type;
    } types[] = {{"q8_0", LM_Q8_0}, {"f16", LM_F16}, {"bf16", LM_BF16}, {"f32", LM_F32}};
    for (int i = 0; i < 4; i++)
        if (!strcmp(name, types[i].name)) {
            *type = types[i].type;
            return true;
        }
    return false;
}

int cli_convert(int argc, char **argv)
{
    static const struct option options[] = {{"model", required_argument, NULL, 'm'},
                                            {"out", required_argument, NULL, 'o'},
                                            {"type", required_argument, NULL, OPT_TYPE},
                                            {"name", required_argument, NULL, OPT_NAME},
                                            {"license", required_argument, NULL, OPT_LICENSE},
                                            {"description", required_argument, NULL, OPT_DESCRIPTION},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    const char *model = NULL, *out = NULL;
    lm_convert_options convert = {.type = LM_Q8_0};
    opterr = 0;
    for (int o; (o = getopt_long(argc, argv, ":m:o:h", options, NULL)) != -1;) {
        switch (o) {
        case 'm': model = optarg; break;
        case 'o': out = optarg; break;
        case OPT_NAME: convert.name = optarg; break;
        case OPT_LICENSE: convert.license = optarg; break;
        case OPT_DESCRIPTION: convert.description = optarg; break;
        case OPT_TYPE:
            if (!find_type(optarg, &convert.type))
                return cli_fail(EXIT_USAGE, "--type '%s': q8_0, f16, bf16 or f32", optarg);
            break;
        case 'h': fputs(help, stdout); return EXIT_DONE;
        default: return cli_bad_option(argv, "convert");
        }
    }
    if (optind < argc)
        return cli_fail(EXIT_USAGE, "unexpected argument '%s'", argv[optind]);
    if (!model || !out)
        return cli_fail(EXIT_USAGE, "give the model's directory with -m and the file to write with -o");
    static const char *const gguf[] = {".gguf", NULL}, *const none[] = {NULL};
    if (!cli_has_ending(out, gguf)) /* and so no part of the model itself */
        return cli_fail(EXIT_USAGE, "-o '%s': a name that ends in .gguf is wanted", out);
    const int code = cli_check_output(out, none);
    if (code)
        return code;
    lm_error err;
    return lm_convert(model, out, &convert, &err) ? EXIT_DONE : cli_fail_lm(&err);
}
