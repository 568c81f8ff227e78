/* A disk and a resolver that fail on request, for one ordinary process.
 *
 * The library is preloaded and stands between a program and the C library. It watches the files
 * below one directory and remembers, outside of it, what a power cut could take away:
 *
 *   journal.c  each 512-byte sector that was changed since its file was last synced, and the file's
 *              length at that time
 *   names.c    each name that was made, replaced or removed since its directory was last synced
 *   faults.c   which faults are wanted, and the socket on which a test orders them
 *   hooks.c    the functions that the program calls instead of the C library's
 *
 * The directory itself is not watched, only what is made in it. Writable shared maps are not
 * noticed.
 *
 * A cut draws lots over all that is remembered, carries the outcome out on the real files, and ends
 * the process. What it leaves is one of the states that a real disk may show after a power cut. The
 * memory is a mapped file, so it outlives a process that is killed: what that one had not synced
 * is still unsynced for the next one.
 *
 * Why nothing else needs to stop: whatever a process says is said after some sync returned, and a
 * sync that returned has already forgotten what it covered, under the same lock that a cut holds.
 *
 * Environment: RAFTZ_SHIM_ROOT, the directory, absolute and free of symbolic links;
 * RAFTZ_SHIM_MEMORY, the path of the memory, on the same file system; RAFTZ_SHIM_CONTROL, the name
 * of a listening socket in the abstract namespace.
 */
#ifndef SHIM_H
#define SHIM_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>

enum { SECTOR = 512, PATH_BYTES = 512 };

/* The C library's own functions. */
struct real {
    int (*openat)(int, const char *, int, ...);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
    int (*ftruncate)(int, off_t);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*renameat2)(int, const char *, int, const char *, unsigned);
    int (*unlinkat)(int, const char *, int);
    int (*statvfs)(const char *, struct statvfs *);
    int (*fstatvfs)(int, struct statvfs *);
    int (*getaddrinfo)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
};
extern struct real real;

/* Guards everything below. Held while an operation changes a file or a name, not while it syncs. */
extern pthread_mutex_t lock;
/* Some sync has ended, or the faults have changed. */
extern pthread_cond_t news;

/* The watched directory; empty while the shim does nothing. */
extern char root[PATH_BYTES];

/* What a cut did to what was not synced, in bytes and names. */
struct tally {
    uint64_t kept, dropped, garbled;
    unsigned names_kept, names_undone;
};

/* The lots of a cut: the same seed, the same lots. */
uint64_t draw(uint64_t *dice);

/* journal.c */
struct names;
struct names *journal_open(const char *path);
/* Takes over what an earlier life left unsynced, and drops what it could not sync. */
void journal_inherit(void);
/* Before bytes from..to of an open file change, or go. */
void journal_changes(int fd, const struct stat *st, uint64_t from, uint64_t to);
/* Around a sync: changes to the file wait until it has ended. */
void journal_wait(ino_t inode);
void journal_sync_begins(const struct stat *st);
void journal_sync_ends(ino_t inode, bool durable);
/* After a sync that failed: what it covered can never be synced any more, only written anew. */
void journal_sync_failed(ino_t inode);
/* The inode is about to be free for another file. */
void journal_forget(ino_t inode);
void journal_cut(bool drop_all, uint64_t *dice, struct tally *tally);

/* names.c */
void names_open(struct names *mapped, const char *kept_directory);
void names_wait(void);
unsigned names_creates(const char *path);
unsigned names_removes(const char *path);
unsigned names_moves(const char *from, const char *to);
/* The operation just announced did not take place. */
void names_retract(unsigned op);
void names_sync_begins(void);
void names_sync_ends(const char *directory, bool durable);
void names_cut(bool drop_all, uint64_t *dice, struct tally *tally);
size_t names_bytes(void);
/* Where a file is now, in the directory or among what was replaced. */
bool names_find(ino_t inode, char path[PATH_MAX]);

/* faults.c */
struct faults {
    bool lie_files, lie_directories; /* syncs do nothing and say that they did */
    bool full;                       /* no file can grow, none can be made */
    bool shows_full;                 /* and the file system says so */
    bool stalled;                    /* syncs do not return */
    unsigned fail_writes, fail_syncs; /* so many of the next ones */
    bool resolver_hangs;
    char host[256];                  /* a name that stands for 127.0.0.1 */
    uint64_t cut_at, cut_seed;       /* so many operations from now */
};
extern struct faults faults;
/* How often each fault was met. */
struct met {
    uint64_t operations, lied, failed, full, stalled, lookups;
    uint64_t inherited; /* sectors that an earlier life left unsynced */
};
extern struct met met;
void faults_open(const char *socket_name);
/* Counts an operation of the program, and cuts the power if this is the one. */
void step(void);
_Noreturn void die(const char *what, const char *detail);

#endif
