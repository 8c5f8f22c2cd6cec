/* prism - long prompts by block-sparse attention. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "eval/text.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *what;
} commands[] = {
    {"run", cli_run, "answer a long prompt, by sparse and, to compare, by full attention"},
    {"attend", cli_attend, "attention over tensors in a safetensors file: mask and output"},
    {"info", cli_info, "this machine: kernel tiers, the one in use, threads, build"},
    {"convert", cli_convert, "a Hugging Face directory, or GGUF of any types, to one GGUF file"},
    {"needle", cli_needle, "write needle-in-a-haystack prompts with gold answers"},
    {"bench", cli_bench, "measure methods: one attention call, its stages, a whole prefill"},
    {"eval", cli_eval, "judge methods: perplexity, needles, RULER, recall"},
};
enum { n_command = sizeof commands / sizeof commands[0] };

static void print_help(FILE *out)
{
    fputs("usage: prism COMMAND [options]\n\n", out);
    for (int i = 0; i < n_command; i++)
        fprintf(out, "  %-8s  %s\n", commands[i].name, commands[i].what);
    fputs("\n'prism COMMAND --help' tells more. To begin with, with a GGUF file or a Hugging Face directory as MODEL:\n"
          "  prism run -m MODEL --chat -f book.txt -p \"What is this text about?\" --compare dense\n\n"
          "exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 unreadable or invalid input, 130 ended by ctrl-C\n",
          out);
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    const bool helps = !strcmp(argv[1], "help");
    if (helps && argc > 2) { /* "help eval ppl" is "eval ppl --help" */
        memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof *argv);
        argv[argc - 1] = "--help";
    } else if (helps || !strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_help(stdout);
        return EXIT_DONE;
    }
    if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
        printf("prism %s\n", prism_version());
        return EXIT_DONE;
    }
    for (int i = 0; i < n_command; i++)
        if (!strcmp(argv[1], commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
    const char *names[n_command];
    for (int i = 0; i < n_command; i++)
        names[i] = commands[i].name;
    const char *nearest = eval_nearest(argv[1], names, n_command);
    return cli_fail(EXIT_USAGE, "unknown command '%s'%s%s%s: 'prism --help' lists them", argv[1],
                    nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "");
}

/*
 * GNU OpenMP and OpenBLAS read these once, before main(): the program starts itself again with what the user left unset.
 * Threads that wait spin shortly, because on a machine with other work spinning costs more than waking up, and on an idle
 * one it costs nothing. OpenBLAS starts no threads of its own: its products are handed out by ours.
 */
static void choose_threads(char **argv)
{
    const int spins = !getenv("GOMP_SPINCOUNT") && !getenv("OMP_WAIT_POLICY"), blas = !getenv("OPENBLAS_NUM_THREADS");
    if ((spins && setenv("GOMP_SPINCOUNT", "1000", 1)) || (blas && setenv("OPENBLAS_NUM_THREADS", "1", 1)))
        return;
    if (spins || blas)
        execv("/proc/self/exe", argv); /* where that fails, all is slower and nothing is wrong */
}

int main(int argc, char **argv)
{
    choose_threads(argv);
    signal(SIGXFSZ, SIG_IGN); /* a file that grows past a limit is a failed write, which cleans up after itself */
    cli_watch_mapped_files();
    const int code = dispatch(argc, argv);
    if (fflush(stdout) || ferror(stdout)) /* results that went nowhere are no success */
        return cli_fail(EXIT_RUN, "writing to standard output failed (%s)", strerror(errno));
    return code;
}
