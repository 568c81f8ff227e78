/* What the program calls instead of the C library.
 *
 * A descriptor is recognised by asking the kernel what it is and where it is, so that duplicates
 * and renamed files need no bookkeeping. Calls that the journal cannot follow, and that a store
 * might well use, end the process.
 */
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum { RESOLVER_HANGS_SECONDS = 30 };
/* Where the file's own position is. */
#define HERE INT64_MIN

struct real real;
pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t news = PTHREAD_COND_INITIALIZER;
char root[PATH_BYTES];

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void find_real(void)
{
#define FIND(name) *(void **)&real.name = dlsym(RTLD_NEXT, #name)
    FIND(openat);
    FIND(write);
    FIND(writev);
    FIND(pwritev);
    FIND(ftruncate);
    FIND(fsync);
    FIND(fdatasync);
    FIND(renameat2);
    FIND(unlinkat);
    FIND(statvfs);
    FIND(fstatvfs);
    FIND(getaddrinfo);
#undef FIND
}

/* Another library's constructor may call before ours has run. */
static void ready(void)
{
    pthread_once(&once, find_real);
}

__attribute__((constructor)) static void begin(void)
{
    ready();
    const char *directory = getenv("RAFTZ_SHIM_ROOT");
    const char *memory = getenv("RAFTZ_SHIM_MEMORY");
    const char *control = getenv("RAFTZ_SHIM_CONTROL");
    if (directory == NULL || memory == NULL || control == NULL)
        return;
    if (strlen(directory) + NAME_MAX >= PATH_BYTES || directory[0] != '/')
        die("not a directory to watch", directory);
    char kept[PATH_BYTES];
    snprintf(kept, sizeof kept, "%s.kept", memory);
    strcpy(root, directory);
    names_open(journal_open(memory), kept);
    journal_inherit();
    faults_open(control);
}

static bool is_below_root(const char *path)
{
    size_t length = strlen(root);
    return length > 0 && strncmp(path, root, length) == 0 &&
           (path[length] == '/' || path[length] == 0);
}

static bool path_of(int fd, char path[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return false;
    path[length] = 0;
    return true;
}

/* Whether an open file or directory is watched. */
static bool is_watched(int fd, struct stat *st, char path[PATH_MAX])
{
    int before = errno;
    bool is = *root != 0 && fstat(fd, st) == 0 && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) &&
              st->st_nlink > 0 && path_of(fd, path) && is_below_root(path);
    errno = before;
    return is;
}

/* The absolute path of a name that is watched. */
static bool is_watched_name(int directory, const char *name, char path[PATH_MAX])
{
    char base[PATH_MAX];
    if (*root == 0)
        return false;
    if (name[0] == '/') {
        snprintf(path, PATH_MAX, "%s", name);
    } else {
        bool known = directory == AT_FDCWD ? getcwd(base, sizeof base) != NULL
                                           : path_of(directory, base);
        if (!known || strlen(base) + strlen(name) + 2 > PATH_MAX)
            return false;
        stpcpy(stpcpy(stpcpy(path, base), "/"), name);
    }
    return is_below_root(path);
}

static void refuse(int fd, const char *call)
{
    struct stat st;
    char path[PATH_MAX];
    if (is_watched(fd, &st, path))
        die(call, "the shim cannot follow this call");
}

static int fails(int error)
{
    errno = error;
    return -1;
}

/* Writing. */

static ssize_t write_watched(int fd, const struct iovec *some, int count, int64_t at)
{
    struct stat st;
    uint64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += some[i].iov_len;
    if (fstat(fd, &st) != 0)
        return -1;
    journal_wait(st.st_ino);
    if (fstat(fd, &st) != 0)
        return -1;
    step();
    uint64_t from = (uint64_t)at;
    if (at == HERE)
        from = fcntl(fd, F_GETFL) & O_APPEND ? (uint64_t)st.st_size
                                             : (uint64_t)lseek(fd, 0, SEEK_CUR);
    if (faults.fail_writes > 0) {
        faults.fail_writes--;
        met.failed++;
        return fails(EIO);
    }
    if (faults.full && from + bytes > (uint64_t)st.st_size) {
        met.full++;
        return fails(ENOSPC);
    }
    journal_changes(fd, &st, from, from + bytes);
    return at == HERE ? real.writev(fd, some, count) : real.pwritev(fd, some, count, at);
}

static ssize_t write_anywhere(int fd, const struct iovec *some, int count, int64_t at)
{
    struct stat st;
    char path[PATH_MAX];
    ready();
    if (!is_watched(fd, &st, path))
        return at == HERE ? real.writev(fd, some, count) : real.pwritev(fd, some, count, at);
    pthread_mutex_lock(&lock);
    ssize_t written = write_watched(fd, some, count, at);
    pthread_mutex_unlock(&lock);
    return written;
}

EXPORT ssize_t write(int fd, const void *bytes, size_t count)
{
    struct iovec all = {(void *)bytes, count};
    return write_anywhere(fd, &all, 1, HERE);
}

EXPORT ssize_t writev(int fd, const struct iovec *some, int count)
{
    return write_anywhere(fd, some, count, HERE);
}

EXPORT ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
    struct iovec all = {(void *)bytes, count};
    return write_anywhere(fd, &all, 1, at);
}

EXPORT ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at)
{
    return pwrite(fd, bytes, count, at);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *some, int count, off_t at)
{
    return write_anywhere(fd, some, count, at);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *some, int count, off64_t at)
{
    return write_anywhere(fd, some, count, at);
}

static int truncate_watched(int fd, off_t bytes)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -1;
    journal_wait(st.st_ino);
    if (fstat(fd, &st) != 0)
        return -1;
    step();
    if (faults.full && bytes > st.st_size) {
        met.full++;
        return fails(ENOSPC);
    }
    if (bytes < st.st_size)
        journal_changes(fd, &st, (uint64_t)bytes, (uint64_t)st.st_size);
    else
        journal_changes(fd, &st, (uint64_t)st.st_size, (uint64_t)bytes);
    return real.ftruncate(fd, bytes);
}

EXPORT int ftruncate(int fd, off_t bytes)
{
    struct stat st;
    char path[PATH_MAX];
    ready();
    if (!is_watched(fd, &st, path))
        return real.ftruncate(fd, bytes);
    pthread_mutex_lock(&lock);
    int result = truncate_watched(fd, bytes);
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int ftruncate64(int fd, off64_t bytes)
{
    return ftruncate(fd, bytes);
}

/* Calls that no journal follows. They are not there for watched files. */

/* But securing room is followed, as what it does to the length. */
EXPORT int fallocate(int fd, int mode, off_t from, off_t bytes)
{
    struct stat st;
    char path[PATH_MAX];
    ready();
    if (mode == 0 && is_watched(fd, &st, path)) {
        pthread_mutex_lock(&lock);
        int result = from + bytes > st.st_size ? truncate_watched(fd, from + bytes) : 0;
        pthread_mutex_unlock(&lock);
        return result;
    }
    refuse(fd, "fallocate");
    int (*next)(int, int, off_t, off_t);
    *(void **)&next = dlsym(RTLD_NEXT, "fallocate");
    return next(fd, mode, from, bytes);
}

EXPORT int fallocate64(int fd, int mode, off64_t from, off64_t bytes)
{
    return fallocate(fd, mode, from, bytes);
}

EXPORT int posix_fallocate(int fd, off_t from, off_t bytes)
{
    ready();
    refuse(fd, "posix_fallocate");
    int (*next)(int, off_t, off_t);
    *(void **)&next = dlsym(RTLD_NEXT, "posix_fallocate");
    return next(fd, from, bytes);
}

EXPORT int posix_fallocate64(int fd, off64_t from, off64_t bytes)
{
    return posix_fallocate(fd, from, bytes);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *some, int count, off_t at, int flags)
{
    ready();
    refuse(fd, "pwritev2");
    ssize_t (*next)(int, const struct iovec *, int, off_t, int);
    *(void **)&next = dlsym(RTLD_NEXT, "pwritev2");
    return next(fd, some, count, at, flags);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *some, int count, off64_t at, int flags)
{
    return pwritev2(fd, some, count, at, flags);
}

EXPORT ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t bytes,
                               unsigned flags)
{
    ready();
    refuse(to, "copy_file_range");
    ssize_t (*next)(int, off64_t *, int, off64_t *, size_t, unsigned);
    *(void **)&next = dlsym(RTLD_NEXT, "copy_file_range");
    return next(from, from_at, to, to_at, bytes, flags);
}

/* Syncing. */

static void stand_still(void)
{
    if (faults.stalled)
        met.stalled++;
    while (faults.stalled)
        pthread_cond_wait(&news, &lock);
}

static int sync_watched(int fd, const struct stat *st, const char *path, int (*sync)(int))
{
    bool is_directory = S_ISDIR(st->st_mode);
    step();
    if (is_directory ? faults.lie_directories : faults.lie_files) {
        met.lied++;
        stand_still();
        return 0;
    }
    bool fail = faults.fail_syncs > 0;
    if (fail) {
        faults.fail_syncs--;
        met.failed++;
    }
    if (is_directory)
        names_sync_begins();
    else
        journal_sync_begins(st);
    /* The power can be cut meanwhile. */
    pthread_mutex_unlock(&lock);
    int result = sync(fd);
    int error = errno;
    pthread_mutex_lock(&lock);
    stand_still();
    step();
    if (fail) {
        result = -1;
        error = EIO;
    }
    if (is_directory) {
        names_sync_ends(path, result == 0);
    } else {
        if (result != 0)
            journal_sync_failed(st->st_ino);
        journal_sync_ends(st->st_ino, result == 0);
    }
    errno = error;
    return result;
}

static int sync_anywhere(int fd, int (*sync)(int))
{
    struct stat st;
    char path[PATH_MAX];
    if (!is_watched(fd, &st, path))
        return sync(fd);
    pthread_mutex_lock(&lock);
    int result = sync_watched(fd, &st, path, sync);
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORT int fsync(int fd)
{
    ready();
    return sync_anywhere(fd, real.fsync);
}

EXPORT int fdatasync(int fd)
{
    ready();
    return sync_anywhere(fd, real.fdatasync);
}

/* Names. */

static void empty_watched(const char *path)
{
    struct stat st;
    int fd = real.openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    /* Nothing else in this process can change it: the lock is held. */
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        journal_wait(st.st_ino);
        journal_changes(fd, &st, 0, (uint64_t)st.st_size);
    }
    close(fd);
}

static int open_watched(const char *path, int flags, mode_t mode)
{
    struct stat st;
    bool is_there = stat(path, &st) == 0;
    if (flags & O_CREAT && !is_there) {
        names_wait();
        step();
        if (faults.full) {
            met.full++;
            return fails(ENOSPC);
        }
        unsigned op = names_creates(path);
        int fd = real.openat(AT_FDCWD, path, flags, mode);
        int error = errno;
        if (fd < 0)
            names_retract(op);
        errno = error;
        return fd;
    }
    if (flags & O_TRUNC && is_there && S_ISREG(st.st_mode)) {
        step();
        empty_watched(path);
    }
    return real.openat(AT_FDCWD, path, flags, mode);
}

static int open_anywhere(int directory, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    ready();
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_watched_name(directory, name, path))
        return real.openat(directory, name, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = open_watched(path, flags, mode);
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list rest)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                            \
    EXPORT int name(const char *path, int flags, ...)         \
    {                                                         \
        va_list rest;                                         \
        va_start(rest, flags);                                \
        mode_t mode = mode_of(flags, rest);                   \
        va_end(rest);                                         \
        return open_anywhere(AT_FDCWD, path, flags, mode);    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                             \
    EXPORT int name(int directory, const char *path, int flags, ...) \
    {                                                            \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = mode_of(flags, rest);                      \
        va_end(rest);                                            \
        return open_anywhere(directory, path, flags, mode);      \
    }
OPENAT(openat)
OPENAT(openat64)

EXPORT int creat(const char *path, mode_t mode)
{
    return open_anywhere(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

EXPORT int renameat2(int from_in, const char *from, int to_in, const char *to, unsigned flags)
{
    char old_path[PATH_MAX], new_path[PATH_MAX];
    ready();
    bool is_from = is_watched_name(from_in, from, old_path);
    bool is_to = is_watched_name(to_in, to, new_path);
    if (is_from != is_to || (is_from && flags != 0))
        die("the shim cannot follow this rename", from);
    if (!is_from)
        return real.renameat2(from_in, from, to_in, to, flags);
    pthread_mutex_lock(&lock);
    names_wait();
    step();
    unsigned op = names_moves(old_path, new_path);
    int result = real.renameat2(from_in, from, to_in, to, 0);
    int error = errno;
    if (result != 0)
        names_retract(op);
    else
        step();
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

EXPORT int renameat(int from_in, const char *from, int to_in, const char *to)
{
    return renameat2(from_in, from, to_in, to, 0);
}

EXPORT int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

EXPORT int unlinkat(int directory, const char *name, int flags)
{
    char path[PATH_MAX];
    ready();
    if (flags & AT_REMOVEDIR || !is_watched_name(directory, name, path))
        return real.unlinkat(directory, name, flags);
    pthread_mutex_lock(&lock);
    names_wait();
    step();
    unsigned op = names_removes(path);
    int result = real.unlinkat(directory, name, flags);
    int error = errno;
    if (result != 0)
        names_retract(op);
    else
        step();
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

EXPORT int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

/* Room. */

static int measured(int result, struct statvfs *room)
{
    if (result == 0 && *root != 0) {
        pthread_mutex_lock(&lock);
        if (faults.shows_full)
            room->f_bfree = room->f_bavail = 0;
        pthread_mutex_unlock(&lock);
    }
    return result;
}

EXPORT int statvfs(const char *path, struct statvfs *room)
{
    ready();
    return measured(real.statvfs(path, room), room);
}

EXPORT int fstatvfs(int fd, struct statvfs *room)
{
    ready();
    return measured(real.fstatvfs(fd, room), room);
}

/* The two have one layout where long has 64 bits. */
_Static_assert(sizeof(struct statvfs) == sizeof(struct statvfs64), "a 64-bit system");

EXPORT int statvfs64(const char *path, struct statvfs64 *room)
{
    return statvfs(path, (struct statvfs *)room);
}

EXPORT int fstatvfs64(int fd, struct statvfs64 *room)
{
    return fstatvfs(fd, (struct statvfs *)room);
}

/* Hosts. */

static bool waits_in_vain(void)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += RESOLVER_HANGS_SECONDS;
    bool in_vain = false;
    pthread_mutex_lock(&lock);
    met.lookups++;
    while (faults.resolver_hangs && !in_vain)
        in_vain = pthread_cond_clockwait(&news, &lock, CLOCK_MONOTONIC, &until) != 0;
    pthread_mutex_unlock(&lock);
    return in_vain;
}

EXPORT int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found)
{
    ready();
    if (host != NULL && faults.host[0] != 0 && strcmp(host, faults.host) == 0) {
        if (waits_in_vain())
            return EAI_AGAIN;
        host = "127.0.0.1";
    }
    return real.getaddrinfo(host, service, hints, found);
}
