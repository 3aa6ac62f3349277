/* Preloaded into a process: its disk is full while a file exists. Writes to files below a folder then fail with ENOSPC,
 * half of each written first; statvfs is not asked (the store asks the kernel itself). While another file exists, syncs
 * of files below that folder fail: nothing is synced.
 *
 *   DAYFLY_FULL_ROOT      the folder, absolute
 *   DAYFLY_FULL_WHILE     the file that says that writes fail
 *   DAYFLY_UNSYNCED_WHILE the file that says that syncs fail. Where it is empty, fsync and fdatasync fail with EIO. Where it
 *                         is not, fdatasync alone fails, with ENOSYS: sled takes that for no failure, and tries fsync */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether the file that this variable names exists, and fd is below the folder. */
static int fails(int fd, const char *variable) {
    const char *root = getenv("DAYFLY_FULL_ROOT"), *flag = getenv(variable);
    char link[64], path[PATH_MAX];
    if (!root || !flag || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && strncmp(path, root, strlen(root)) == 0;
}

static ssize_t written_at(int fd, const void *bytes, size_t length, off_t offset) {
    if (!fails(fd, "DAYFLY_FULL_WHILE")) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    /* A short write first, then the error: the way a disk fills up. */
    if (length > 1) return syscall(SYS_pwrite64, fd, bytes, length / 2, offset);
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written_at(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    return written_at(fd, bytes, length, offset);
}

static int unsynced(int why) {
    errno = why;
    return -1;
}

/* Whether fdatasync alone fails. */
static int as_unknown(void) {
    struct stat flag;
    return stat(getenv("DAYFLY_UNSYNCED_WHILE"), &flag) == 0 && flag.st_size > 0;
}

int fsync(int fd) {
    if (fails(fd, "DAYFLY_UNSYNCED_WHILE") && !as_unknown()) return unsynced(EIO);
    return (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    if (fails(fd, "DAYFLY_UNSYNCED_WHILE")) return unsynced(as_unknown() ? ENOSYS : EIO);
    return (int)syscall(SYS_fdatasync, fd);
}
