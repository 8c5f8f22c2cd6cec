/* The Python scripts that draw: where they are, and how they are run. */
#include <libgen.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "lm/file.h"

static bool join(char *path, size_t n, const char *folder, const char *place, const char *name)
{
    return snprintf(path, n, "%s/%s%s", folder, place, name) < (int)n && lm_path_exists(path);
}

bool cli_find_script(const char *name, const char *folder, char *path, size_t n)
{
    if (folder)
        return join(path, n, folder, "", name);
    char program[3072];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0)
        return false;
    program[length] = '\0';
    folder = dirname(program);
    return join(path, n, folder, "../share/prism_attn/", name) || join(path, n, folder, "../tools/", name);
}

int cli_run_python(const char *const *arguments)
{
    const char *argv[8] = {"python3"};
    for (int i = 0; i < 6 && arguments[i]; i++)
        argv[i + 1] = arguments[i];
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        execvp("python3", (char *const *)(uintptr_t)argv);
        _exit(CLI_NO_PYTHON);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) < 0 || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}
