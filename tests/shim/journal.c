/* Which sectors of which files a power cut could take away.
 *
 * Per file: its length when it was last synced and, for each sector changed since, what the sector
 * held then. A sync of the file forgets both. The tables are indexed by sector, of a fixed size and
 * sparse; what does not fit ends the process, so that nothing is ever missed in silence.
 *
 * A killed process may leave at any instruction: old bytes are stored before the state that says
 * that they are there.
 */
#include "shim.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FILES = 256, SECTORS = 8192 };

/* A sector's state: since its file was last synced it is unchanged, or has replaced the old bytes,
 * or lies where the file had not been. */
enum { CLEAN = 0, CHANGED = 1, ADDED = 2, LOST = 4 };

struct map {
    uint64_t inode[FILES];
    uint64_t durable_bytes[FILES];
    _Atomic uint8_t state[FILES][SECTORS];
    uint8_t old[FILES][SECTORS][SECTOR];
};

static struct map *map;
/* Of this life only: a sync ends with its process. */
static bool syncing[FILES];

uint64_t draw(uint64_t *dice)
{
    uint64_t z = (*dice += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int find(ino_t inode)
{
    for (int file = 0; file < FILES; file++)
        if (map->inode[file] == inode)
            return file;
    return -1;
}

static int find_or_make(ino_t inode, uint64_t durable_bytes)
{
    int file = find(inode);
    if (file >= 0)
        return file;
    file = find(0);
    if (file < 0)
        die("too many files with unsynced bytes", root);
    map->durable_bytes[file] = durable_bytes;
    atomic_signal_fence(memory_order_seq_cst);
    map->inode[file] = inode;
    return file;
}

static void clear(int file)
{
    memset((void *)map->state[file], CLEAN, sizeof map->state[file]);
    atomic_signal_fence(memory_order_seq_cst);
    map->inode[file] = 0;
}

void journal_wait(ino_t inode)
{
    for (;;) {
        int file = find(inode);
        if (file < 0 || !syncing[file])
            return;
        pthread_cond_wait(&news, &lock);
    }
}

void journal_changes(int fd, const struct stat *st, uint64_t from, uint64_t to)
{
    if (to > (uint64_t)SECTORS * SECTOR)
        die("a file outgrew the shim's tables", root);
    int file = find_or_make(st->st_ino, (uint64_t)st->st_size);
    int reader = -1;
    for (uint64_t sector = from / SECTOR; sector * SECTOR < to; sector++) {
        uint8_t state = map->state[file][sector];
        if (state != CLEAN) {
            map->state[file][sector] = state & ~LOST;
            continue;
        }
        if (sector * SECTOR >= map->durable_bytes[file]) {
            map->state[file][sector] = ADDED;
            continue;
        }
        uint8_t *old = map->old[file][sector];
        memset(old, 0, SECTOR);
        if (reader < 0) {
            /* The program's own descriptor may be for writing only. */
            char self[64];
            snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
            reader = real.openat(AT_FDCWD, self, O_RDONLY | O_CLOEXEC);
        }
        if (reader < 0 || pread(reader, old, SECTOR, (off_t)(sector * SECTOR)) < 0)
            die("cannot read what is about to be overwritten", strerror(errno));
        map->state[file][sector] = CHANGED;
    }
    if (reader >= 0)
        close(reader);
}

void journal_sync_begins(const struct stat *st)
{
    journal_wait(st->st_ino);
    syncing[find_or_make(st->st_ino, (uint64_t)st->st_size)] = true;
}

void journal_sync_ends(ino_t inode, bool durable)
{
    int file = find(inode);
    if (file < 0)
        return;
    bool clean = true;
    for (unsigned sector = 0; sector < SECTORS && durable; sector++) {
        if (map->state[file][sector] & LOST)
            clean = false;
        else if (map->state[file][sector] != CLEAN)
            map->state[file][sector] = CLEAN;
    }
    if (durable && clean)
        clear(file);
    syncing[file] = false;
    pthread_cond_broadcast(&news);
}

void journal_sync_failed(ino_t inode)
{
    int file = find(inode);
    for (unsigned sector = 0; file >= 0 && sector < SECTORS; sector++)
        if (map->state[file][sector] != CLEAN)
            map->state[file][sector] |= LOST;
}

void journal_forget(ino_t inode)
{
    int file = find(inode);
    if (file >= 0)
        clear(file);
}

static int open_inode(ino_t inode)
{
    char path[PATH_MAX];
    if (!names_find(inode, path))
        return -1;
    int fd = real.openat(AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        die("cannot reach a file of the journal", path);
    return fd;
}

static void put(int fd, uint64_t sector, uint8_t bytes[SECTOR], uint64_t end)
{
    uint64_t at = sector * SECTOR;
    struct iovec all = {bytes, end - at < SECTOR ? end - at : SECTOR};
    if (real.pwritev(fd, &all, 1, (off_t)at) < 0)
        die("cannot write what a cut leaves", strerror(errno));
}

/* The kernel drops what it could not write: the next life reads the disk, not the dead one's
 * memory. */
static void drop_lost(int file)
{
    int fd = -1;
    uint64_t bytes = map->durable_bytes[file];
    for (uint64_t sector = 0; sector < SECTORS; sector++) {
        if (!(map->state[file][sector] & LOST))
            continue;
        if (fd < 0 && (fd = open_inode(map->inode[file])) < 0)
            break;
        if (sector * SECTOR < bytes)
            put(fd, sector, map->old[file][sector], bytes);
        map->state[file][sector] = CLEAN;
    }
    if (fd >= 0)
        close(fd);
}

struct names *journal_open(const char *path)
{
    int fd = real.openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    size_t bytes = sizeof *map + names_bytes();
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0 || real.ftruncate(fd, (off_t)bytes) != 0)
        die("cannot open the memory", path);
    /* The descriptor stays open for its lock. */
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        die("cannot map the memory", path);
    map = at;
    return (struct names *)(map + 1);
}

/* The length that a file has after a cut: the old one, the new one, or between. */
static uint64_t length_after(uint64_t durable, uint64_t now, bool drop_all, uint64_t *dice)
{
    if (drop_all || durable == now)
        return durable;
    uint64_t lot = draw(dice) % 4;
    if (lot == 0)
        return durable;
    if (lot == 1 || now < durable)
        return now;
    uint64_t between = (durable + draw(dice) % (now - durable)) / SECTOR * SECTOR;
    return between > durable ? between : durable;
}

static void cut_file(int file, bool drop_all, uint64_t *dice, struct tally *tally)
{
    int fd = open_inode(map->inode[file]);
    struct stat st;
    if (fd < 0)
        return;
    if (fstat(fd, &st) != 0)
        die("cannot measure a file of the journal", root);
    uint64_t now = (uint64_t)st.st_size;
    uint64_t end = length_after(map->durable_bytes[file], now, drop_all, dice);
    if (end < now)
        tally->dropped += now - end;
    if (real.ftruncate(fd, (off_t)end) != 0)
        die("cannot shorten a file", strerror(errno));
    /* Some disks only drop, some also garble what they were writing. */
    uint64_t garbles = draw(dice) % 2;
    for (uint64_t sector = 0; sector < SECTORS && sector * SECTOR < end; sector++) {
        uint8_t state = map->state[file][sector];
        if (state == CLEAN)
            continue;
        uint64_t lot = drop_all || sector * SECTOR >= now ? 0 : draw(dice) % (2 + garbles);
        uint8_t bytes[SECTOR] = {0};
        if (lot == 1) {
            tally->kept += SECTOR;
            continue;
        }
        if (lot == 2) {
            for (unsigned at = 0; at < SECTOR; at++)
                bytes[at] = (uint8_t)draw(dice);
            tally->garbled += SECTOR;
        } else {
            if (!(state & ADDED))
                memcpy(bytes, map->old[file][sector], SECTOR);
            tally->dropped += SECTOR;
        }
        put(fd, sector, bytes, end);
    }
    close(fd);
}

void journal_cut(bool drop_all, uint64_t *dice, struct tally *tally)
{
    for (int file = 0; file < FILES; file++) {
        if (map->inode[file] != 0) {
            cut_file(file, drop_all, dice, tally);
            clear(file);
        }
    }
}

void journal_inherit(void)
{
    for (int file = 0; file < FILES; file++) {
        if (map->inode[file] == 0)
            continue;
        drop_lost(file);
        for (unsigned sector = 0; sector < SECTORS; sector++)
            met.inherited += map->state[file][sector] != CLEAN;
    }
}
