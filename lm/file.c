#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens a regular file and tells its size. Does not wait for the other end of a pipe. */
static int open_regular(const char *path, size_t *bytes, lm_error *err)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        lm_fail(err, LM_ERROR_INPUT, "%s: cannot be read (%s)", path, strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        lm_fail(err, LM_ERROR_INPUT, "%s: is not a regular file", path);
    } else if ((uint64_t)st.st_size > SIZE_MAX / 2) {
        lm_fail(err, LM_ERROR_MEMORY, "%s: %lld bytes do not fit the address space", path, (long long)st.st_size);
    } else {
        *bytes = (size_t)st.st_size;
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

bool lm_map_open(const char *path, lm_map *map, lm_error *err)
{
    *map = (lm_map){0};
    size_t bytes;
    const int fd = open_regular(path, &bytes, err);
    if (fd < 0)
        return false;
    void *data = bytes ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    const int why = errno;
    close(fd);
    if (data == MAP_FAILED)
        return lm_fail(err, why == ENOMEM ? LM_ERROR_MEMORY : LM_ERROR_INPUT, "%s: cannot map its %zu bytes (%s)", path,
                       bytes, strerror(why));
    map->data = data;
    map->bytes = bytes;
    return true;
}

void lm_map_close(lm_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (lm_map){0};
}

static bool read_all(int fd, char *at, size_t n)
{
    while (n > 0) {
        const ssize_t got = read(fd, at, n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        at += got;
        n -= (size_t)got;
    }
    return true;
}

bool lm_read_file(const char *path, size_t max_bytes, char **text, size_t *n, lm_error *err)
{
    size_t bytes;
    const int fd = open_regular(path, &bytes, err);
    if (fd < 0)
        return false;
    if (bytes > max_bytes) {
        close(fd);
        return lm_fail(err, LM_ERROR_INPUT, "%s: %zu bytes are more than the %zu that such a file may have", path,
                       bytes, max_bytes);
    }
    char *data = malloc(bytes + 1);
    if (!data) {
        close(fd);
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory for its %zu bytes", path, bytes);
    }
    const bool ok = read_all(fd, data, bytes);
    close(fd);
    if (!ok) {
        free(data);
        return lm_fail(err, LM_ERROR_INPUT, "%s: reading stopped early (%s)", path, strerror(errno));
    }
    data[bytes] = '\0';
    *text = data;
    *n = bytes;
    return true;
}

char *lm_path_join(const char *dir, const char *name)
{
    const size_t n = strlen(dir), m = strlen(name);
    char *path = malloc(n + m + 2);
    if (!path)
        return NULL;
    memcpy(path, dir, n);
    size_t at = n;
    if (n && dir[n - 1] != '/')
        path[at++] = '/';
    memcpy(path + at, name, m + 1);
    return path;
}

bool lm_path_is_directory(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool lm_path_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static bool open_stdout(lm_writer *w, lm_error *err)
{
    const int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    w->file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (w->file)
        return true;
    const int why = errno;
    if (fd >= 0)
        close(fd);
    return lm_fail(err, LM_ERROR_RUN, "standard output cannot be written (%s)", strerror(why));
}

/* A device, pipe or socket is written in place: there is nothing to replace it with. */
static bool open_in_place(lm_writer *w, lm_error *err)
{
    w->file = lm_path_is_directory(w->path) ? NULL : fopen(w->path, "wb");
    return w->file || lm_fail(err, LM_ERROR_RUN, "%s: cannot be written (%s)", w->path,
                              lm_path_is_directory(w->path) ? "it is a directory" : strerror(errno));
}

static bool open_temporary(lm_writer *w, lm_error *err)
{
    if (asprintf(&w->temporary, "%s.XXXXXX", w->path) < 0) {
        w->temporary = NULL;
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory to write it", w->path);
    }
    const int fd = mkstemp(w->temporary);
    if (fd < 0) {
        lm_fail(err, LM_ERROR_RUN, "%s: cannot be created (%s)", w->path, strerror(errno));
        free(w->temporary);
        w->temporary = NULL; /* there is nothing to remove */
        return false;
    }
    const mode_t mask = umask(0); /* mkstemp makes private files; a result is for everyone the user lets read */
    umask(mask);
    fchmod(fd, 0666 & ~mask);
    w->file = fdopen(fd, "wb");
    if (w->file)
        return true;
    close(fd);
    return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory to write it", w->path);
}

bool lm_writer_open(lm_writer *w, const char *path, lm_error *err)
{
    const bool is_stdout = !strcmp(path, "-");
    *w = (lm_writer){0};
    w->path = is_stdout ? NULL : realpath(path, NULL); /* a link stays, and what it points to is replaced */
    if (!w->path)
        w->path = strdup(is_stdout ? "standard output" : path);
    if (!w->path)
        return lm_fail(err, LM_ERROR_MEMORY, "%s: no memory to write it", path);
    struct stat st;
    const bool in_place = !is_stdout && stat(w->path, &st) == 0 && !S_ISREG(st.st_mode);
    if (is_stdout ? open_stdout(w, err) : in_place ? open_in_place(w, err) : open_temporary(w, err))
        return true;
    lm_writer_discard(w);
    return false;
}

bool lm_writer_put(lm_writer *w, const void *data, size_t bytes, lm_error *err)
{
    if (bytes && fwrite(data, 1, bytes, w->file) != bytes)
        return lm_fail(err, LM_ERROR_RUN, "%s: writing failed (%s)", w->path, strerror(errno));
    w->n_written += bytes;
    return true;
}

bool lm_writer_pad(lm_writer *w, size_t alignment, lm_error *err)
{
    static const char zeros[64];
    const size_t over = (size_t)(w->n_written % alignment);
    for (size_t left = over ? alignment - over : 0; left > 0;) {
        const size_t n = left < sizeof zeros ? left : sizeof zeros;
        if (!lm_writer_put(w, zeros, n, err))
            return false;
        left -= n;
    }
    return true;
}

bool lm_writer_commit(lm_writer *w, lm_error *err)
{
    bool ok = fflush(w->file) == 0 && (!w->temporary || fsync(fileno(w->file)) == 0);
    ok = fclose(w->file) == 0 && ok;
    w->file = NULL;
    if (!ok || (w->temporary && rename(w->temporary, w->path) != 0)) {
        lm_fail(err, LM_ERROR_RUN, "%s: writing failed (%s)", w->path, strerror(errno));
        lm_writer_discard(w);
        return false;
    }
    free(w->path);
    free(w->temporary);
    *w = (lm_writer){0};
    return true;
}

void lm_writer_discard(lm_writer *w)
{
    if (w->file)
        fclose(w->file);
    if (w->temporary)
        unlink(w->temporary);
    free(w->path);
    free(w->temporary);
    *w = (lm_writer){0};
}
