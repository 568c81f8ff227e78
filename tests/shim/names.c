/* Which names a power cut could take away or bring back.
 *
 * A list of what was done to names since their directory was last synced, in order. What a removal
 * or a replacing rename hides is kept under another name, outside of the directory, until then.
 * A cut takes operations back from the newest to the oldest, each by lot, but never one whose names
 * a later operation that stays has built on.
 */
#include "shim.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

enum { OPS = 2048 };

enum kind { GONE = 0, CREATED, REMOVED, MOVED };

struct op {
    enum kind kind;
    unsigned kept; /* the number under which the hidden file is kept; 0: none */
    uint64_t inode; /* of the file that was moved */
    char path[PATH_BYTES], target[PATH_BYTES];
};

struct names {
    unsigned count, kept_last;
    struct op op[OPS];
};

static struct names *names;
static char kept_root[PATH_BYTES];
static bool syncing;

size_t names_bytes(void)
{
    return sizeof *names;
}

void names_open(struct names *mapped, const char *kept_directory)
{
    names = mapped;
    snprintf(kept_root, sizeof kept_root, "%s", kept_directory);
    if (mkdir(kept_root, 0700) != 0 && errno != EEXIST)
        die("cannot make a directory", kept_root);
}

void names_wait(void)
{
    while (syncing)
        pthread_cond_wait(&news, &lock);
}

static void kept_path(unsigned number, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%u", kept_root, number);
}

static unsigned announce(enum kind kind, const char *path, const char *target, const char *hides)
{
    if (names->count == OPS)
        die("too many unsynced names", root);
    if (strlen(path) >= PATH_BYTES || strlen(target) >= PATH_BYTES)
        die("a path is too long", path);
    unsigned at = names->count;
    struct op *op = &names->op[at];
    struct stat st;
    memset(op, 0, sizeof *op);
    op->kind = kind;
    strcpy(op->path, path);
    strcpy(op->target, target);
    op->inode = stat(path, &st) == 0 ? st.st_ino : 0;
    if (hides != NULL && stat(hides, &st) == 0) {
        char kept[PATH_MAX];
        op->kept = ++names->kept_last;
        kept_path(op->kept, kept);
        if (link(hides, kept) != 0)
            die("cannot keep what is about to be replaced", hides);
    }
    atomic_signal_fence(memory_order_seq_cst);
    names->count = at + 1;
    return at;
}

unsigned names_creates(const char *path)
{
    return announce(CREATED, path, "", NULL);
}

unsigned names_removes(const char *path)
{
    return announce(REMOVED, path, "", path);
}

unsigned names_moves(const char *from, const char *to)
{
    return announce(MOVED, from, to, to);
}

/* Nobody can bring the hidden file back any more. */
static void forget(struct op *op)
{
    char kept[PATH_MAX];
    struct stat st;
    op->kind = GONE;
    if (op->kept == 0)
        return;
    kept_path(op->kept, kept);
    if (stat(kept, &st) == 0 && st.st_nlink == 1)
        journal_forget(st.st_ino);
    real.unlinkat(AT_FDCWD, kept, 0);
}

static void drop_forgotten(void)
{
    while (names->count > 0 && names->op[names->count - 1].kind == GONE)
        names->count--;
}

void names_retract(unsigned at)
{
    forget(&names->op[at]);
    drop_forgotten();
}

static bool lies_in(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && path[length] == '/' &&
           strchr(path + length + 1, '/') == NULL;
}

void names_sync_begins(void)
{
    names_wait();
    syncing = true;
}

void names_sync_ends(const char *directory, bool durable)
{
    for (unsigned at = 0; at < names->count && durable; at++) {
        struct op *op = &names->op[at];
        if (op->kind != GONE && lies_in(op->kind == MOVED ? op->target : op->path, directory))
            forget(op);
    }
    drop_forgotten();
    syncing = false;
    pthread_cond_broadcast(&news);
}

static bool touches(const struct op *op, const char *name)
{
    return *name != 0 && (strcmp(op->path, name) == 0 || strcmp(op->target, name) == 0);
}

/* Whether an operation that stays came after this one and built on its names. */
static bool is_built_on(unsigned at)
{
    const struct op *op = &names->op[at];
    for (unsigned later = at + 1; later < names->count; later++) {
        const struct op *other = &names->op[later];
        if (other->kind != GONE && (touches(other, op->path) || touches(other, op->target)))
            return true;
    }
    return false;
}

static void undo(const struct op *op)
{
    char kept[PATH_MAX];
    struct stat st;
    kept_path(op->kept, kept);
    switch (op->kind) {
    case GONE:
        break;
    case CREATED:
        real.unlinkat(AT_FDCWD, op->path, 0);
        break;
    case REMOVED:
        real.renameat2(AT_FDCWD, kept, AT_FDCWD, op->path, 0);
        break;
    case MOVED:
        /* The process may have been killed before it moved anything. */
        if (stat(op->target, &st) != 0 || st.st_ino != op->inode)
            break;
        real.renameat2(AT_FDCWD, op->target, AT_FDCWD, op->path, 0);
        if (op->kept != 0)
            real.renameat2(AT_FDCWD, kept, AT_FDCWD, op->target, 0);
        break;
    }
}

void names_cut(bool drop_all, uint64_t *dice, struct tally *tally)
{
    for (unsigned at = names->count; at-- > 0;) {
        struct op *op = &names->op[at];
        if (op->kind == GONE)
            continue;
        if (is_built_on(at) || (!drop_all && draw(dice) % 2 == 0)) {
            tally->names_kept++;
            continue;
        }
        undo(op);
        tally->names_undone++;
        op->kind = GONE;
    }
    for (unsigned at = 0; at < names->count; at++)
        forget(&names->op[at]);
    names->count = 0;
}

static bool find_below(const char *directory, ino_t inode, char path[PATH_MAX])
{
    DIR *entries = opendir(directory);
    struct dirent *entry;
    bool found = false;
    while (entries != NULL && !found && (entry = readdir(entries)) != NULL) {
        struct stat st;
        char below[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (snprintf(below, sizeof below, "%s/%s", directory, entry->d_name) >= PATH_MAX)
            die("a path is too long", directory);
        if (lstat(below, &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode)) {
            found = find_below(below, inode, path);
        } else if (st.st_ino == inode) {
            strcpy(path, below);
            found = true;
        }
    }
    if (entries != NULL)
        closedir(entries);
    return found;
}

bool names_find(ino_t inode, char path[PATH_MAX])
{
    return find_below(root, inode, path) || find_below(kept_root, inode, path);
}
