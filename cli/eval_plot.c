/* prism eval --plot: hands the results to tools/plot_eval.py. */
#include "eval.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int explain(int code, const char *script)
{
    switch (code) {
    case 0: return EXIT_DONE;
    case CLI_NO_PYTHON: return cli_fail(EXIT_RUN, "--plot: there is no python3 on the PATH");
    case CLI_NO_MATPLOTLIB:
        return cli_fail(EXIT_RUN, "--plot: python3 lacks matplotlib (pip install matplotlib, or the package "
                                  "python3-matplotlib)");
    default: return cli_fail(EXIT_RUN, "--plot: %s failed", script);
    }
}

int eval_plot_check(void)
{
    static const char look[] = "import importlib.util as u, sys; sys.exit(0 if u.find_spec('matplotlib') else 4)";
    char script[4096];
    if (!cli_find_script("plot_eval.py", NULL, script, sizeof script))
        return cli_fail(EXIT_RUN, "--plot: plot_eval.py is not beside the program, in ../share/prism_attn or ../tools");
    return explain(cli_run_python((const char *[]){"-c", look, NULL}), "python3");
}

int eval_plot(const cJSON *json, const char *file)
{
    char path[] = "/tmp/prism-eval-XXXXXX", script[4096] = "";
    char *text = cJSON_PrintUnformatted(json);
    cli_find_script("plot_eval.py", NULL, script, sizeof script);
    const int fd = text ? mkstemp(path) : -1;
    const bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    const int code = written ? explain(cli_run_python((const char *[]){script, path, file, NULL}), script)
                             : cli_fail(EXIT_RUN, "--plot: no room for the numbers in /tmp");
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    cJSON_free(text);
    return code;
}
