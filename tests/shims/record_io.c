/* Preloaded into a process that writes a store: records what it does to the files under one folder, and when what it
 * did was synced, so that a test can rebuild what a disk may hold after a power cut at any moment.
 *
 *   DAYFLY_RECORD_ROOT     the folder, absolute, without a slash at the end
 *   DAYFLY_RECORD_TRACE    the file that records are appended to
 *   DAYFLY_RECORD_SWALLOW  if set, fdatasync does nothing and says it did: the broken variant that must be noticed
 *
 * A record is its length (u32, of what follows), its kind (one byte), and:
 *   C inode path          a file that was not there was opened: it is created
 *   W inode offset bytes  written
 *   T inode size          truncated or extended
 *   B inode number        a sync begins
 *   E inode number        it has ended: everything of this inode recorded before its B is durable
 *   R old 0 new           renamed
 *   U path                unlinked
 *   M inode path          a folder was made
 *   D path                a folder was removed
 * Numbers are little-endian u64, paths are below the root. Syncs are recorded and not done: the test's own disk is not
 * the one that fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define FDS 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int trace = -1;
static int swallow;
static uint64_t syncs;
/* The inode behind each file descriptor of ours; 0 for others. */
static uint64_t inodes[FDS];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DAYFLY_RECORD_TRACE");
    root = getenv("DAYFLY_RECORD_ROOT");
    if (!root || !path) {
        root = NULL;
        return;
    }
    root_length = strlen(root);
    swallow = getenv("DAYFLY_RECORD_SWALLOW") != NULL;
    trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* The path below the root, or NULL where it is not below it. Relative paths are resolved against `at`. */
static const char *below(int at, const char *path, char *buffer) {
    if (!root || !path) return NULL;
    if (path[0] != '/' && at >= 0 && at < FDS && inodes[at]) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t length = readlink(link, buffer, PATH_MAX - 1);
        if (length < 0 || length + 1 + strlen(path) >= PATH_MAX) return NULL;
        buffer[length] = '/';
        strcpy(buffer + length + 1, path);
        path = buffer;
    }
    if (strncmp(path, root, root_length) != 0) return NULL;
    if (path[root_length] == 0) return "";
    return path[root_length] == '/' ? path + root_length + 1 : NULL;
}

static void put(char kind, const struct iovec *parts, int count) {
    struct iovec all[8];
    uint32_t length = 1;
    for (int i = 0; i < count; i++) {
        length += (uint32_t)parts[i].iov_len;
        all[i + 2] = parts[i];
    }
    all[0] = (struct iovec){&length, 4};
    all[1] = (struct iovec){&kind, 1};
    ssize_t written = syscall(SYS_writev, trace, all, count + 2);
    if (written != (ssize_t)length + 4) abort();
}

static void put_number_and(char kind, uint64_t number, const void *bytes, size_t length) {
    struct iovec parts[2] = {{&number, 8}, {(void *)bytes, length}};
    put(kind, parts, 2);
}

static void put_path(char kind, const char *path) {
    struct iovec part = {(void *)path, strlen(path)};
    put(kind, &part, 1);
}

static uint64_t inode_of(int fd) { return fd >= 0 && fd < FDS ? inodes[fd] : 0; }

static int opened(int at, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = below(at, path, buffer);
    if (!name) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before, after;
    int was_there = fstatat(at, path, &before, 0) == 0;
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    int error = errno;
    if (fd >= 0 && fd < FDS && fstat(fd, &after) == 0) {
        inodes[fd] = after.st_ino;
        if (!was_there) put_number_and('C', after.st_ino, name, strlen(name));
        if (was_there && (flags & O_TRUNC) && before.st_size > 0) {
            uint64_t size = 0;
            put_number_and('T', after.st_ino, &size, 8);
        }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;                                      \
        va_end(more);                                                                                                  \
        return opened(AT_FDCWD, path, flags, mode);                                                                    \
    }
#define OPENAT(name)                                                                                                   \
    int name(int at, const char *path, int flags, ...) {                                                               \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0;                                      \
        va_end(more);                                                                                                  \
        return opened(at, path, flags, mode);                                                                          \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(close);
    if (inode_of(fd)) inodes[fd] = 0;
    return real(fd);
}

static ssize_t wrote(uint64_t inode, uint64_t offset, const void *bytes, ssize_t length) {
    int error = errno;
    if (length > 0) {
        struct iovec parts[3] = {{&inode, 8}, {&offset, 8}, {(void *)bytes, (size_t)length}};
        put('W', parts, 3);
    }
    errno = error;
    return length;
}

static ssize_t written_at(int fd, const void *bytes, size_t length, off_t offset) {
    if (!inode_of(fd)) return syscall(SYS_pwrite64, fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, length, offset);
    done = wrote(inode_of(fd), (uint64_t)offset, bytes, done);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return written_at(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    return written_at(fd, bytes, length, offset);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    if (!inode_of(fd)) return syscall(SYS_write, fd, bytes, length);
    pthread_mutex_lock(&lock);
    off_t offset = lseek(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) ? SEEK_END : SEEK_CUR);
    ssize_t done = syscall(SYS_write, fd, bytes, length);
    done = wrote(inode_of(fd), (uint64_t)offset, bytes, done);
    pthread_mutex_unlock(&lock);
    return done;
}

static int resized(int fd, off_t size) {
    if (!inode_of(fd)) return (int)syscall(SYS_ftruncate, fd, size);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_ftruncate, fd, size);
    int error = errno;
    uint64_t to = (uint64_t)size;
    if (done == 0) put_number_and('T', inode_of(fd), &to, 8);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int ftruncate(int fd, off_t size) { return resized(fd, size); }
int ftruncate64(int fd, off_t size) { return resized(fd, size); }

static int synced(int fd) {
    uint64_t inode = inode_of(fd);
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs;
    put_number_and('B', inode, &number, 8);
    pthread_mutex_unlock(&lock);
    /* Other writes may come in between: they are not covered. */
    pthread_mutex_lock(&lock);
    put_number_and('E', inode, &number, 8);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return inode_of(fd) ? synced(fd) : (int)syscall(SYS_fsync, fd); }
int fdatasync(int fd) {
    if (!inode_of(fd)) return (int)syscall(SYS_fdatasync, fd);
    return swallow ? 0 : synced(fd);
}

int rename(const char *old, const char *new) {
    REAL(rename);
    char buffers[2][PATH_MAX];
    const char *from = below(AT_FDCWD, old, buffers[0]), *to = below(AT_FDCWD, new, buffers[1]);
    if (!from || !to) return real(old, new);
    pthread_mutex_lock(&lock);
    int done = real(old, new), error = errno;
    if (done == 0) {
        struct iovec parts[3] = {{(void *)from, strlen(from)}, {"", 1}, {(void *)to, strlen(to)}};
        put('R', parts, 3);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

static int removed(int at, const char *path, int flags) {
    char buffer[PATH_MAX];
    const char *name = below(at, path, buffer);
    if (!name) return (int)syscall(SYS_unlinkat, at, path, flags);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_unlinkat, at, path, flags), error = errno;
    if (done == 0) put_path((flags & AT_REMOVEDIR) ? 'D' : 'U', name);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }

int mkdir(const char *path, mode_t mode) {
    char buffer[PATH_MAX];
    const char *name = below(AT_FDCWD, path, buffer);
    if (!name) return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), error = errno;
    struct stat made;
    if (done == 0 && stat(path, &made) == 0) put_number_and('M', made.st_ino, name, strlen(name));
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
