/* prism eval --plot: hands the results to tools/plot_eval.py. */
#include "eval.h"

#include "eval/corpus.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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
    char path[] = "/tmp/prism-eval-XXXXXX";
    char *script = eval_bundled_file("plot_eval.py"), *text = cJSON_PrintUnformatted(json);
    if (!script) {
        cJSON_free(text);
        return cli_fail(EXIT_RUN, "the plot was not drawn: tools/plot_eval.py is not to be found");
    }
    const int fd = text ? mkstemp(path) : -1;
    const bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    const int code = written ? run_script(script, path, file)
                             : cli_fail(EXIT_RUN, "the plot was not drawn: no room for its numbers in /tmp");
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    cJSON_free(text);
    free(script);
    return code;
}
