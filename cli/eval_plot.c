/* prism eval --plot: hands the results to tools/plot_eval.py. */
#include "eval.h"

#include "lm/file.h"

#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Beside an installed program, beside a build folder in the sources, or under the working directory. */
static bool find_script(char *path, size_t n)
{
    static const char *const places[] = {"../share/prism_attn/plot_eval.py", "../tools/plot_eval.py"};
    char exe[4096];
    const ssize_t length = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (length > 0) {
        exe[length] = '\0';
        const char *folder = dirname(exe);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
            snprintf(path, n, "%s/%s", folder, places[i]);
            if (lm_path_exists(path))
                return true;
        }
    }
    snprintf(path, n, "tools/plot_eval.py");
    return lm_path_exists(path);
}

/* No shell: file names are arguments, whatever is in them. */
static int run_script(const char *script, const char *json, const char *file)
{
    const pid_t child = fork();
    if (child < 0)
        return cli_fail(EXIT_RUN, "cannot start python3");
    if (child == 0) {
        execlp("python3", "python3", script, json, file, (char *)NULL);
        _exit(127);
    }
    int status;
    if (waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
        return cli_fail(EXIT_RUN, "the plot was not drawn: python3 ended early");
    switch (WEXITSTATUS(status)) {
    case 0: return EXIT_DONE;
    case 127: return cli_fail(EXIT_RUN, "the plot was not drawn: there is no python3 on the PATH");
    case 4:
        return cli_fail(EXIT_RUN, "the plot was not drawn: python3 lacks matplotlib (pip install matplotlib, or the "
                                  "package python3-matplotlib)");
    default: return cli_fail(EXIT_RUN, "the plot was not drawn: %s failed", script);
    }
}

int eval_plot(const cJSON *json, const char *file)
{
    char script[4200], path[] = "/tmp/prism-eval-XXXXXX";
    if (!find_script(script, sizeof script))
        return cli_fail(EXIT_RUN, "the plot was not drawn: tools/plot_eval.py is not to be found");
    char *text = json ? cJSON_PrintUnformatted(json) : NULL;
    const int fd = text ? mkstemp(path) : -1;
    if (fd < 0) {
        cJSON_free(text);
        return cli_fail(EXIT_RUN, "the plot was not drawn: no room for its numbers in /tmp");
    }
    const size_t n = strlen(text);
    const bool written = write(fd, text, n) == (ssize_t)n;
    close(fd);
    cJSON_free(text);
    const int code = written ? run_script(script, path, file)
                             : cli_fail(EXIT_RUN, "the plot was not drawn: no room for its numbers in /tmp");
    unlink(path);
    return code;
}
