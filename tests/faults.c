/* Preloaded into a test's process: counts what is done to files below a folder, and at a chosen count ends the process
   or lets the disk be full. Built by tests/test_faults.py: cc -shared -fPIC -o faults.so faults.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL_BEFORE, KILL_WITHIN, FULL };

static long done, at;
static int mode = -1;
static char folder[PATH_MAX];

void faults_arm(long when, int how, const char *where) {
    done = 0;
    at = when;
    snprintf(folder, sizeof folder, "%s", where);
    mode = how;
}

long faults_count(void) { return done; }

static int below(const char *path) {
    char whole[PATH_MAX * 2];
    size_t length = strlen(folder);
    if (path[0] == '/') return strncmp(path, folder, length) == 0;
    if (!getcwd(whole, PATH_MAX)) return 0;
    return strncmp(whole, folder, length) == 0;
}

static int ours(int fd) {
    char link[64], path[PATH_MAX];
    ssize_t length;
    if (mode < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return path[0] == '/' && below(path);
}

/* What shall happen to the operation that begins now: 0 nothing, 1 it fails for want of space, 2 it is cut in two. */
static int begins(int needs_space, int can_be_cut) {
    long number = ++done;
    if (mode == KILL_BEFORE && number == at) kill(getpid(), SIGKILL);
    if (mode == KILL_WITHIN && number == at) {
        if (can_be_cut) return 2;
        kill(getpid(), SIGKILL);
    }
    return mode == FULL && number >= at && needs_space;
}

#define NEXT(type, name, arguments) \
    static type(*next) arguments;   \
    if (!next) next = (type(*) arguments)dlsym(RTLD_NEXT, #name)

#define WRITES(name, offset_type)                                                            \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset) {               \
        NEXT(ssize_t, name, (int, const void *, size_t, offset_type));                       \
        if (ours(fd)) switch (begins(1, 1)) {                                                \
            case 1: errno = ENOSPC; return -1;                                               \
            case 2: next(fd, data, count / 2, offset); kill(getpid(), SIGKILL);              \
        }                                                                                    \
        return next(fd, data, count, offset);                                                \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t count) {
    NEXT(ssize_t, write, (int, const void *, size_t));
    if (ours(fd)) switch (begins(1, 1)) {
        case 1: errno = ENOSPC; return -1;
        case 2: next(fd, data, count / 2); kill(getpid(), SIGKILL);
    }
    return next(fd, data, count);
}

#define ON_FILE(name, declared, given, types, needs_space)        \
    int name declared {                                           \
        NEXT(int, name, types);                                   \
        if (ours(fd) && begins(needs_space, 0) == 1) {            \
            errno = ENOSPC;                                       \
            return -1;                                            \
        }                                                         \
        return next given;                                        \
    }
ON_FILE(fsync, (int fd), (fd), (int), 0)
ON_FILE(fdatasync, (int fd), (fd), (int), 0)
ON_FILE(ftruncate, (int fd, off_t size), (fd, size), (int, off_t), 0)
ON_FILE(ftruncate64, (int fd, off64_t size), (fd, size), (int, off64_t), 0)

#define ON_PATH(name, path, declared, given, types, needs_space)             \
    int name declared {                                                      \
        NEXT(int, name, types);                                              \
        if (mode >= 0 && below(path) && begins(needs_space, 0) == 1) {       \
            errno = ENOSPC;                                                  \
            return -1;                                                       \
        }                                                                    \
        return next given;                                                   \
    }
ON_PATH(rename, to, (const char *from, const char *to), (from, to), (const char *, const char *), 0)
ON_PATH(renameat, to, (int a, const char *from, int b, const char *to), (a, from, b, to),
        (int, const char *, int, const char *), 0)
ON_PATH(unlink, path, (const char *path), (path), (const char *), 0)
ON_PATH(unlinkat, path, (int fd, const char *path, int flags), (fd, path, flags), (int, const char *, int), 0)
ON_PATH(rmdir, path, (const char *path), (path), (const char *), 0)
ON_PATH(mkdir, path, (const char *path, mode_t how), (path, how), (const char *, mode_t), 1)

#define OPENS(name)                                                                                     \
    int name(const char *path, int flags, ...) {                                                        \
        mode_t how = 0;                                                                                 \
        NEXT(int, name, (const char *, int, ...));                                                      \
        if (flags & O_CREAT) {                                                                          \
            va_list more;                                                                               \
            va_start(more, flags);                                                                      \
            how = va_arg(more, mode_t);                                                                 \
            va_end(more);                                                                               \
            if (mode >= 0 && below(path) && access(path, F_OK) != 0 && begins(1, 0) == 1) {             \
                errno = ENOSPC;                                                                         \
                return -1;                                                                              \
            }                                                                                           \
        }                                                                                               \
        return next(path, flags, how);                                                                  \
    }
OPENS(open)
OPENS(open64)
