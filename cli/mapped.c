/* Weights are read from mapped files. What another process cuts off such a file raises SIGBUS when it is read. */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/* A line of /proc/self/maps: "from-to access offset device inode path". Nothing here allocates or locks, because a
 * signal handler calls it. */
typedef struct maps {
    int fd;
    char buffer[4096], line[4096];
    ssize_t n, at;
} maps;

static bool next_line(maps *m)
{
    size_t n = 0;
    for (;;) {
        if (m->at == m->n) {
            m->n = read(m->fd, m->buffer, sizeof m->buffer);
            m->at = 0;
            if (m->n <= 0)
                return false;
        }
        const char c = m->buffer[m->at++];
        if (c == '\n')
            break;
        if (n + 1 < sizeof m->line)
            m->line[n++] = c;
    }
    m->line[n] = '\0';
    return true;
}

static uintptr_t hexadecimal(const char **text)
{
    uintptr_t value = 0;
    for (;; (*text)++) {
        const char c = **text;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return value;
    }
}

/* The path of the file that is mapped at an address; NULL: none is. */
static const char *mapped_at(maps *m, uintptr_t address)
{
    while (next_line(m)) {
        const char *at = m->line;
        const uintptr_t from = hexadecimal(&at);
        at += *at == '-';
        if (address >= from && address < hexadecimal(&at))
            return strchr(at, '/');
    }
    return NULL;
}

static void on_bus_error(int signal_number, siginfo_t *info, void *context)
{
    static atomic_flag taken = ATOMIC_FLAG_INIT;
    (void)context;
    while (atomic_flag_test_and_set(&taken))
        pause(); /* another thread came first and ends the program */
    maps m = {.fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)};
    const char *path = info->si_code == BUS_ADRERR && m.fd >= 0 ? mapped_at(&m, (uintptr_t)info->si_addr) : NULL;
    if (!path) { /* another defect: it ends the program as it would have without this handler */
        signal(signal_number, SIG_DFL);
        return;
    }
    static const char ending[] = ": changed while it was in use: it became shorter. Run the command again once the "
                                 "file is whole\n";
    char text[sizeof m.line + sizeof ending + 16] = "\nprism: ";
    cli_escape(path, text + strlen(text), sizeof m.line);
    strcat(text, ending);
    (void)!write(STDERR_FILENO, text, strlen(text));
    _exit(EXIT_INPUT);
}

void cli_watch_mapped_files(void)
{
    const struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
}
