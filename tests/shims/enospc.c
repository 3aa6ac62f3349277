/* Preloaded into a process: its disk is full while a file exists. Writes to files below a folder then fail with ENOSPC,
 * half of each written first; statvfs is not asked (the store asks the kernel itself).
 *
 *   DAYFLY_FULL_ROOT  the folder, absolute
 *   DAYFLY_FULL_WHILE the file that says so */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_full(int fd) {
    const char *root = getenv("DAYFLY_FULL_ROOT"), *full = getenv("DAYFLY_FULL_WHILE");
    char link[64], path[PATH_MAX];
    if (!root || !full || access(full, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && strncmp(path, root, strlen(root)) == 0;
}

static ssize_t written_at(int fd, const void *bytes, size_t length, off_t offset) {
    if (!is_full(fd)) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    /* A short write first, then the error: the way a disk fills up. */
    if (length > 1) return syscall(SYS_pwrite64, fd, bytes, length / 2, offset);
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written_at(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    return written_at(fd, bytes, length, offset);
}
