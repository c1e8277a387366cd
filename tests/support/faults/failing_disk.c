/* Lets one call of the C library that is about a file below a directory fail, or all from it on.
 *
 * Loaded by LD_PRELOAD; whoever holds the state (in memory that forked children share) chooses which
 * call, which error and which kinds of calls. Calls that are made past the C library are not seen.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { READS = 1, CHANGES = 2, NEEDS_ROOM = 4 };

struct state {
    int is_armed;    /* set in the child that is to meet the error */
    int kinds;       /* which calls count */
    int code;        /* the error */
    int from_then;   /* 0: that call alone */
    long at;         /* the number of the call that fails first */
    long calls;      /* how many there were */
    long failed;     /* how many of them failed */
    char root[PATH_MAX];
    char what[64];   /* the first call that failed, and its file */
    char path[PATH_MAX];
};

static struct state *state;

__attribute__((constructor)) static void begin(void) {
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

struct state *failing_disk_state(void) { return state; }

static int below(const char *path) {
    size_t length = strlen(state->root);
    return strncmp(path, state->root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* Returns whether the call is to fail, errno being set. */
static int fails(int kind, const char *what, const char *path) {
    if (!(state->kinds & kind) || !below(path)) return 0;
    long number = __atomic_fetch_add(&state->calls, 1, __ATOMIC_SEQ_CST);
    if (number != state->at && !(state->from_then && number > state->at)) return 0;
    if (number == state->at) {
        snprintf(state->what, sizeof state->what, "%s", what);
        snprintf(state->path, sizeof state->path, "%s", path);
    }
    __atomic_fetch_add(&state->failed, 1, __ATOMIC_SEQ_CST);
    errno = state->code;
    return 1;
}

static int is_armed(void) { return state && state->is_armed; }

static int fails_fd(int kind, const char *what, int fd) {
    char link[64], path[PATH_MAX];
    if (!is_armed()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(kind, what, path);
}

static int fails_at(int kind, const char *what, int directory, const char *name) {
    char link[64], path[2 * PATH_MAX];
    if (!is_armed()) return 0;
    if (name[0] == '/') return fails(kind, what, name);
    if (directory == AT_FDCWD) {
        snprintf(link, sizeof link, "/proc/self/cwd");
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    }
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    snprintf(path + length, sizeof path - length, "/%s", name);
    return fails(kind, what, path);
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int kind_of_open(int flags) {
    if (flags & (O_CREAT | O_TRUNC)) return CHANGES | NEEDS_ROOM;
    return (flags & O_ACCMODE) == O_RDONLY ? READS : CHANGES;
}

#define OPEN(symbol) \
    int symbol(const char *path, int flags, ...) { \
        REAL(int, #symbol, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (fails_at(kind_of_open(flags), "open", AT_FDCWD, path)) return -1; \
        return real(path, flags, mode); \
    }
OPEN(open) OPEN(open64)

#define OPENAT(symbol) \
    int symbol(int directory, const char *path, int flags, ...) { \
        REAL(int, #symbol, int, const char *, int, ...); \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        if (fails_at(kind_of_open(flags), "openat", directory, path)) return -1; \
        return real(directory, path, flags, mode); \
    }
OPENAT(openat) OPENAT(openat64)

static int kind_of_mode(const char *mode) {
    if (mode[0] == 'w' || mode[0] == 'a') return CHANGES | NEEDS_ROOM;
    return strchr(mode, '+') ? CHANGES : READS;
}

/* A call about a descriptor, its arguments in brackets. */
#define ABOUT_FD(type, symbol, kind, failure, types, names, fd) \
    type symbol types { \
        static type (*real) types; \
        if (!real) real = (type(*) types)dlsym(RTLD_NEXT, #symbol); \
        if (fails_fd(kind, #symbol, fd)) return failure; \
        return real names; \
    }

ABOUT_FD(ssize_t, read, READS, -1, (int fd, void *data, size_t n), (fd, data, n), fd)
ABOUT_FD(ssize_t, pread, READS, -1, (int fd, void *data, size_t n, off_t at), (fd, data, n, at), fd)
ABOUT_FD(ssize_t, pread64, READS, -1, (int fd, void *data, size_t n, off64_t at), (fd, data, n, at), fd)
ABOUT_FD(ssize_t, preadv, READS, -1, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), fd)
ABOUT_FD(ssize_t, preadv64, READS, -1, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at), fd)
ABOUT_FD(ssize_t, preadv64v2, READS, -1, (int fd, const struct iovec *v, int n, off64_t at, int f), (fd, v, n, at, f), fd)
ABOUT_FD(ssize_t, preadv2, READS, -1, (int fd, const struct iovec *v, int n, off_t at, int f), (fd, v, n, at, f), fd)
ABOUT_FD(ssize_t, readv, READS, -1, (int fd, const struct iovec *v, int n), (fd, v, n), fd)
ABOUT_FD(off_t, lseek, READS, -1, (int fd, off_t at, int how), (fd, at, how), fd)
ABOUT_FD(off64_t, lseek64, READS, -1, (int fd, off64_t at, int how), (fd, at, how), fd)
ABOUT_FD(int, fstat, READS, -1, (int fd, struct stat *to), (fd, to), fd)
ABOUT_FD(int, fstat64, READS, -1, (int fd, struct stat64 *to), (fd, to), fd)
ABOUT_FD(DIR *, fdopendir, READS, NULL, (int fd), (fd), fd)
ABOUT_FD(int, flock, READS, -1, (int fd, int how), (fd, how), fd)
ABOUT_FD(int, fstatvfs, READS, -1, (int fd, struct statvfs *to), (fd, to), fd)
ABOUT_FD(int, fstatvfs64, READS, -1, (int fd, struct statvfs64 *to), (fd, to), fd)

ABOUT_FD(ssize_t, write, CHANGES | NEEDS_ROOM, -1, (int fd, const void *data, size_t n), (fd, data, n), fd)
ABOUT_FD(ssize_t, writev, CHANGES | NEEDS_ROOM, -1, (int fd, const struct iovec *v, int n), (fd, v, n), fd)
ABOUT_FD(ssize_t, pwrite, CHANGES | NEEDS_ROOM, -1, (int fd, const void *data, size_t n, off_t at), (fd, data, n, at), fd)
ABOUT_FD(ssize_t, pwrite64, CHANGES | NEEDS_ROOM, -1, (int fd, const void *data, size_t n, off64_t at), (fd, data, n, at), fd)
ABOUT_FD(ssize_t, pwritev, CHANGES | NEEDS_ROOM, -1, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), fd)
ABOUT_FD(ssize_t, pwritev64, CHANGES | NEEDS_ROOM, -1, (int fd, const struct iovec *v, int n, off64_t at), (fd, v, n, at), fd)
ABOUT_FD(ssize_t, pwritev2, CHANGES | NEEDS_ROOM, -1, (int fd, const struct iovec *v, int n, off_t at, int f), (fd, v, n, at, f), fd)
ABOUT_FD(ssize_t, pwritev64v2, CHANGES | NEEDS_ROOM, -1, (int fd, const struct iovec *v, int n, off64_t at, int f), (fd, v, n, at, f), fd)
ABOUT_FD(ssize_t, sendfile, CHANGES | NEEDS_ROOM, -1, (int fd, int from, off_t *at, size_t n), (fd, from, at, n), fd)
ABOUT_FD(ssize_t, sendfile64, CHANGES | NEEDS_ROOM, -1, (int fd, int from, off64_t *at, size_t n), (fd, from, at, n), fd)
ABOUT_FD(ssize_t, splice, CHANGES | NEEDS_ROOM, -1, (int a, off64_t *b, int fd, off64_t *d, size_t n, unsigned f), (a, b, fd, d, n, f), fd)
ABOUT_FD(int, fsync, CHANGES | NEEDS_ROOM, -1, (int fd), (fd), fd)
ABOUT_FD(int, fdatasync, CHANGES | NEEDS_ROOM, -1, (int fd), (fd), fd)
ABOUT_FD(int, sync_file_range, CHANGES | NEEDS_ROOM, -1, (int fd, off64_t at, off64_t n, unsigned f), (fd, at, n, f), fd)
ABOUT_FD(int, ftruncate, CHANGES | NEEDS_ROOM, -1, (int fd, off_t n), (fd, n), fd)
ABOUT_FD(int, ftruncate64, CHANGES | NEEDS_ROOM, -1, (int fd, off64_t n), (fd, n), fd)
ABOUT_FD(int, fallocate, CHANGES | NEEDS_ROOM, -1, (int fd, int how, off_t at, off_t n), (fd, how, at, n), fd)
ABOUT_FD(int, fallocate64, CHANGES | NEEDS_ROOM, -1, (int fd, int how, off64_t at, off64_t n), (fd, how, at, n), fd)
ABOUT_FD(int, posix_fallocate, CHANGES | NEEDS_ROOM, errno, (int fd, off_t at, off_t n), (fd, at, n), fd)
ABOUT_FD(int, posix_fallocate64, CHANGES | NEEDS_ROOM, errno, (int fd, off64_t at, off64_t n), (fd, at, n), fd)
ABOUT_FD(int, fchmod, CHANGES, -1, (int fd, mode_t mode), (fd, mode), fd)
ABOUT_FD(int, fchown, CHANGES, -1, (int fd, uid_t u, gid_t g), (fd, u, g), fd)
ABOUT_FD(int, futimens, CHANGES, -1, (int fd, const struct timespec t[2]), (fd, t), fd)
ABOUT_FD(ssize_t, fgetxattr, READS, -1, (int fd, const char *name, void *to, size_t n), (fd, name, to, n), fd)
ABOUT_FD(ssize_t, flistxattr, READS, -1, (int fd, char *to, size_t n), (fd, to, n), fd)
ABOUT_FD(int, fsetxattr, CHANGES | NEEDS_ROOM, -1, (int fd, const char *name, const void *data, size_t n, int f), (fd, name, data, n, f), fd)
ABOUT_FD(int, fremovexattr, CHANGES, -1, (int fd, const char *name), (fd, name), fd)
ABOUT_FD(ssize_t, copy_file_range, CHANGES | NEEDS_ROOM, -1, (int a, off64_t *b, int fd, off64_t *d, size_t n, unsigned f), (a, b, fd, d, n, f), fd)

/* The descriptor is closed all the same, as by the kernel. What was only read tells of no error. */
int close(int fd) {
    REAL(int, "close", int);
    int is_written = is_armed() && (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    int is_broken = is_written && fails_fd(CHANGES | NEEDS_ROOM, "close", fd), code = errno;
    int result = real(fd);
    if (!is_broken) return result;
    errno = code;
    return -1;
}

/* Of all that it does, only a copy of a file by reference is about the file's data. */
int ioctl(int fd, unsigned long what, ...) {
    REAL(int, "ioctl", int, unsigned long, ...);
    va_list rest; va_start(rest, what); void *data = va_arg(rest, void *); va_end(rest);
    if (what == FICLONE && fails_fd(CHANGES | NEEDS_ROOM, "ioctl", fd)) return -1;
    return real(fd, what, data);
}

/* A call about a path; those with a directory before it. */
#define ABOUT_PATH(type, symbol, kind, failure, types, names, directory, path) \
    type symbol types { \
        static type (*real) types; \
        if (!real) real = (type(*) types)dlsym(RTLD_NEXT, #symbol); \
        if (fails_at(kind, #symbol, directory, path)) return failure; \
        return real names; \
    }

ABOUT_PATH(int, stat, READS, -1, (const char *p, struct stat *to), (p, to), AT_FDCWD, p)
ABOUT_PATH(int, stat64, READS, -1, (const char *p, struct stat64 *to), (p, to), AT_FDCWD, p)
ABOUT_PATH(int, lstat, READS, -1, (const char *p, struct stat *to), (p, to), AT_FDCWD, p)
ABOUT_PATH(int, lstat64, READS, -1, (const char *p, struct stat64 *to), (p, to), AT_FDCWD, p)
ABOUT_PATH(int, fstatat, READS, -1, (int d, const char *p, struct stat *to, int f), (d, p, to, f), d, p)
ABOUT_PATH(int, fstatat64, READS, -1, (int d, const char *p, struct stat64 *to, int f), (d, p, to, f), d, p)
ABOUT_PATH(int, statx, READS, -1, (int d, const char *p, int f, unsigned m, struct statx *to), (d, p, f, m, to), d, p)
ABOUT_PATH(int, statvfs, READS, -1, (const char *p, struct statvfs *to), (p, to), AT_FDCWD, p)
ABOUT_PATH(int, statvfs64, READS, -1, (const char *p, struct statvfs64 *to), (p, to), AT_FDCWD, p)
ABOUT_PATH(int, access, READS, -1, (const char *p, int how), (p, how), AT_FDCWD, p)
ABOUT_PATH(int, faccessat, READS, -1, (int d, const char *p, int how, int f), (d, p, how, f), d, p)
ABOUT_PATH(ssize_t, readlink, READS, -1, (const char *p, char *to, size_t n), (p, to, n), AT_FDCWD, p)
ABOUT_PATH(ssize_t, readlinkat, READS, -1, (int d, const char *p, char *to, size_t n), (d, p, to, n), d, p)
ABOUT_PATH(ssize_t, getxattr, READS, -1, (const char *p, const char *name, void *to, size_t n), (p, name, to, n), AT_FDCWD, p)
ABOUT_PATH(ssize_t, lgetxattr, READS, -1, (const char *p, const char *name, void *to, size_t n), (p, name, to, n), AT_FDCWD, p)
ABOUT_PATH(ssize_t, listxattr, READS, -1, (const char *p, char *to, size_t n), (p, to, n), AT_FDCWD, p)
ABOUT_PATH(ssize_t, llistxattr, READS, -1, (const char *p, char *to, size_t n), (p, to, n), AT_FDCWD, p)
ABOUT_PATH(FILE *, fopen, kind_of_mode(mode), NULL, (const char *p, const char *mode), (p, mode), AT_FDCWD, p)
ABOUT_PATH(FILE *, fopen64, kind_of_mode(mode), NULL, (const char *p, const char *mode), (p, mode), AT_FDCWD, p)
ABOUT_PATH(DIR *, opendir, READS, NULL, (const char *p), (p), AT_FDCWD, p)
ABOUT_PATH(int, setxattr, CHANGES | NEEDS_ROOM, -1, (const char *p, const char *name, const void *data, size_t n, int f), (p, name, data, n, f), AT_FDCWD, p)
ABOUT_PATH(int, lsetxattr, CHANGES | NEEDS_ROOM, -1, (const char *p, const char *name, const void *data, size_t n, int f), (p, name, data, n, f), AT_FDCWD, p)
ABOUT_PATH(int, removexattr, CHANGES, -1, (const char *p, const char *name), (p, name), AT_FDCWD, p)
ABOUT_PATH(int, lremovexattr, CHANGES, -1, (const char *p, const char *name), (p, name), AT_FDCWD, p)
ABOUT_PATH(int, truncate, CHANGES | NEEDS_ROOM, -1, (const char *p, off_t n), (p, n), AT_FDCWD, p)
ABOUT_PATH(int, truncate64, CHANGES | NEEDS_ROOM, -1, (const char *p, off64_t n), (p, n), AT_FDCWD, p)
ABOUT_PATH(int, symlink, CHANGES | NEEDS_ROOM, -1, (const char *to, const char *p), (to, p), AT_FDCWD, p)
ABOUT_PATH(int, symlinkat, CHANGES | NEEDS_ROOM, -1, (const char *to, int d, const char *p), (to, d, p), d, p)
ABOUT_PATH(int, mkfifo, CHANGES | NEEDS_ROOM, -1, (const char *p, mode_t m), (p, m), AT_FDCWD, p)
ABOUT_PATH(int, mkfifoat, CHANGES | NEEDS_ROOM, -1, (int d, const char *p, mode_t m), (d, p, m), d, p)
ABOUT_PATH(int, mknod, CHANGES | NEEDS_ROOM, -1, (const char *p, mode_t m, dev_t v), (p, m, v), AT_FDCWD, p)
ABOUT_PATH(int, mknodat, CHANGES | NEEDS_ROOM, -1, (int d, const char *p, mode_t m, dev_t v), (d, p, m, v), d, p)
ABOUT_PATH(int, unlink, CHANGES, -1, (const char *p), (p), AT_FDCWD, p)
ABOUT_PATH(int, unlinkat, CHANGES, -1, (int d, const char *p, int f), (d, p, f), d, p)
ABOUT_PATH(int, rmdir, CHANGES, -1, (const char *p), (p), AT_FDCWD, p)
ABOUT_PATH(int, mkdir, CHANGES | NEEDS_ROOM, -1, (const char *p, mode_t m), (p, m), AT_FDCWD, p)
ABOUT_PATH(int, mkdirat, CHANGES | NEEDS_ROOM, -1, (int d, const char *p, mode_t m), (d, p, m), d, p)
ABOUT_PATH(int, rename, CHANGES | NEEDS_ROOM, -1, (const char *p, const char *q), (p, q), AT_FDCWD, q)
ABOUT_PATH(int, renameat, CHANGES | NEEDS_ROOM, -1, (int d, const char *p, int e, const char *q), (d, p, e, q), e, q)
ABOUT_PATH(int, renameat2, CHANGES | NEEDS_ROOM, -1, (int d, const char *p, int e, const char *q, unsigned f), (d, p, e, q, f), e, q)
ABOUT_PATH(int, link, CHANGES | NEEDS_ROOM, -1, (const char *p, const char *q), (p, q), AT_FDCWD, q)
ABOUT_PATH(int, linkat, CHANGES | NEEDS_ROOM, -1, (int d, const char *p, int e, const char *q, int f), (d, p, e, q, f), e, q)
ABOUT_PATH(int, chmod, CHANGES, -1, (const char *p, mode_t m), (p, m), AT_FDCWD, p)
ABOUT_PATH(int, fchmodat, CHANGES, -1, (int d, const char *p, mode_t m, int f), (d, p, m, f), d, p)
ABOUT_PATH(int, chown, CHANGES, -1, (const char *p, uid_t u, gid_t g), (p, u, g), AT_FDCWD, p)
ABOUT_PATH(int, lchown, CHANGES, -1, (const char *p, uid_t u, gid_t g), (p, u, g), AT_FDCWD, p)
ABOUT_PATH(int, fchownat, CHANGES, -1, (int d, const char *p, uid_t u, gid_t g, int f), (d, p, u, g, f), d, p)
ABOUT_PATH(int, utimensat, CHANGES, -1, (int d, const char *p, const struct timespec t[2], int f), (d, p, t, f), d, p)

struct dirent *readdir(DIR *entries) {
    REAL(struct dirent *, "readdir", DIR *);
    if (fails_fd(READS, "readdir", dirfd(entries))) return NULL;
    return real(entries);
}

struct dirent64 *readdir64(DIR *entries) {
    REAL(struct dirent64 *, "readdir64", DIR *);
    if (fails_fd(READS, "readdir64", dirfd(entries))) return NULL;
    return real(entries);
}
