/* A file system that lacks something, below $LACKING_TARGET: preloaded into a command.
 * $LACKING is one of sync, links, modes, locks. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int lacks(const char *what, int fd)
{
    const char *lacking = getenv("LACKING"), *target = getenv("LACKING_TARGET");
    char link[64], path[4096];
    ssize_t length;

    if (!lacking || !target || strcmp(lacking, what))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strncmp(path, target, strlen(target)) == 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd)
{
    struct stat status;

    if (lacks("sync", fd) && !fstat(fd, &status) && S_ISDIR(status.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return REAL(fsync)(fd);
}

int linkat(int old_fd, const char *old, int new_fd, const char *new, int flags)
{
    int above = new[0] == '/' ? open(dirname(strdupa(new)), O_PATH) : dup(new_fd);
    int refused = lacks("links", above);

    close(above);
    if (refused) {
        errno = EPERM;
        return -1;
    }
    return REAL(linkat)(old_fd, old, new_fd, new, flags);
}

int fchmod(int fd, mode_t mode)
{
    if (lacks("modes", fd)) {
        errno = EPERM;
        return -1;
    }
    return REAL(fchmod)(fd, mode);
}

int flock(int fd, int operation)
{
    if (lacks("locks", fd)) {
        errno = ENOLCK;
        return -1;
    }
    return REAL(flock)(fd, operation);
}
