/*
 * A store for raftz on SQLite: two tables, of records and of entries. What is submitted is one transaction: whole or
 * not at all, and on the disk when it has been committed (`journal_mode = WAL`, `synchronous = FULL`). Then, and only
 * then, it is completed.
 */
#define _GNU_SOURCE

#include "custom_storage.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { RESERVE_BYTES = 64 << 20, BUSY_MS = 10000 };

/* An open database. Writes come from one thread at a time, reads from another. */
typedef struct store {
    const char *path;
    int lock;
    sqlite3 *writer;
    sqlite3 *reader;
    raftz_completions *completions;
} store;

/* Runs a statement that gives no rows; of ?1, ?2 and ?3 it has as many as it needs. */
static int run(sqlite3 *db, const char *sql, uint64_t first, uint64_t second,
               const raftz_slice *bytes) {
    sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (result == SQLITE_OK) {
        const int parameters = sqlite3_bind_parameter_count(statement);
        if (parameters >= 1) {
            sqlite3_bind_int64(statement, 1, (sqlite3_int64)first);
        }
        if (parameters >= 2) {
            sqlite3_bind_int64(statement, 2, (sqlite3_int64)second);
        }
        if (parameters >= 3) {
            result = sqlite3_bind_blob64(statement, 3, bytes->data, bytes->len, SQLITE_STATIC);
        }
        while (result == SQLITE_OK || result == SQLITE_ROW) {
            result = sqlite3_step(statement);
        }
    }
    sqlite3_finalize(statement);
    return result == SQLITE_DONE ? SQLITE_OK : result;
}

/* Whether a statement's first value is this text. */
static bool gives(sqlite3 *db, const char *sql, const char *expected) {
    sqlite3_stmt *statement = NULL;
    bool is_equal = false;
    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) == SQLITE_OK &&
        sqlite3_step(statement) == SQLITE_ROW) {
        const unsigned char *text = sqlite3_column_text(statement, 0);
        is_equal = text != NULL && strcmp((const char *)text, expected) == 0;
    }
    sqlite3_finalize(statement);
    return is_equal;
}

static void store_destroy(void *opened) {
    store *it = opened;
    sqlite3_close(it->reader);
    sqlite3_close(it->writer);
    if (it->lock >= 0) {
        close(it->lock);
    }
    free(it);
}

/*
 * What SQLite is told to open. `psow=0`: a power cut in the middle of a write may garble whole sectors, also those bytes
 * of them that had been committed before. Without that a commit may lie in a sector that a later one writes to.
 */
static char *uri_of(const char *path) {
    char *uri = malloc(3 * strlen(path) + sizeof "file:?psow=0");
    if (uri == NULL) {
        return NULL;
    }
    char *end = uri + sprintf(uri, "file:");
    for (; *path != '\0'; path++) {
        end += sprintf(end, strchr("%?#", *path) != NULL ? "%%%02X" : "%c", (unsigned char)*path);
    }
    strcpy(end, "?psow=0");
    return uri;
}

/* Takes the lock, so that nobody opens a database twice, and makes the tables that are not there yet. */
static bool store_prepare(store *it, raftz_sink *why) {
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", it->path);
    it->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (it->lock < 0 || flock(it->lock, LOCK_EX | LOCK_NB) != 0) {
        raftz_sink_fail(why, raftz_text(it->lock < 0 ? strerror(errno) : "in use by another node"));
        return false;
    }
    char *uri = uri_of(it->path);
    const int create = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
    const bool is_open = uri != NULL && sqlite3_open_v2(uri, &it->writer, create, NULL) == SQLITE_OK;
    free(uri);
    const bool is_ready =
        is_open && sqlite3_busy_timeout(it->writer, BUSY_MS) == SQLITE_OK &&
        gives(it->writer, "PRAGMA journal_mode = WAL", "wal") &&
        run(it->writer, "PRAGMA synchronous = FULL", 0, 0, NULL) == SQLITE_OK &&
        gives(it->writer, "PRAGMA synchronous", "2") &&
        /* The part of the log that is not in the tables yet stays below a megabyte. */
        gives(it->writer, "PRAGMA wal_autocheckpoint = 200", "200") &&
        run(it->writer,
            "CREATE TABLE IF NOT EXISTS record (grp INTEGER PRIMARY KEY, bytes BLOB NOT NULL)", 0, 0,
            NULL) == SQLITE_OK &&
        run(it->writer,
            "CREATE TABLE IF NOT EXISTS entry (grp INTEGER, idx INTEGER, bytes BLOB NOT NULL,"
            " PRIMARY KEY (grp, idx))",
            0, 0, NULL) == SQLITE_OK;
    if (!is_ready) {
        raftz_sink_fail(why, raftz_text(sqlite3_errmsg(it->writer)));
        return false;
    }
    if (sqlite3_open_v2(it->path, &it->reader, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK ||
        sqlite3_busy_timeout(it->reader, BUSY_MS) != SQLITE_OK) {
        raftz_sink_fail(why, raftz_text(sqlite3_errmsg(it->reader)));
        return false;
    }
    return true;
}

static raftz_status store_open(void *path, raftz_completions *completions, raftz_sink *why,
                               void **opened) {
    store *it = calloc(1, sizeof *it);
    if (it == NULL) {
        return RAFTZ_CALLBACK_FAILED;
    }
    it->path = path;
    it->completions = completions;
    if (!store_prepare(it, why)) {
        store_destroy(it);
        return RAFTZ_CALLBACK_FAILED;
    }
    *opened = it;
    return RAFTZ_OK;
}

static raftz_status store_load(void *opened, uint32_t group, raftz_sink *record) {
    store *it = opened;
    sqlite3_stmt *statement = NULL;
    int result =
        sqlite3_prepare_v2(it->reader, "SELECT bytes FROM record WHERE grp = ?1", -1, &statement, NULL);
    if (result == SQLITE_OK) {
        sqlite3_bind_int64(statement, 1, group);
        result = sqlite3_step(statement);
    }
    if (result == SQLITE_ROW) {
        const raftz_slice bytes = {sqlite3_column_blob(statement, 0),
                                   (size_t)sqlite3_column_bytes(statement, 0)};
        raftz_sink_write(record, bytes);
    } else if (result != SQLITE_DONE) {
        raftz_sink_fail(record, raftz_text(sqlite3_errmsg(it->reader)));
    }
    sqlite3_finalize(statement);
    return result == SQLITE_ROW || result == SQLITE_DONE ? RAFTZ_OK : RAFTZ_CALLBACK_FAILED;
}

static int store_write(sqlite3 *db, const raftz_log_write *write) {
    int result = SQLITE_OK;
    if (write->remove_from > 0) {
        result = run(db, "DELETE FROM entry WHERE grp = ?1 AND idx >= ?2", write->group,
                     write->remove_from, NULL);
    }
    if (result == SQLITE_OK && write->remove_upto > 0) {
        result = run(db, "DELETE FROM entry WHERE grp = ?1 AND idx <= ?2", write->group,
                     write->remove_upto, NULL);
    }
    for (size_t at = 0; at < write->entry_count && result == SQLITE_OK; at++) {
        const raftz_log_entry *entry = &write->entries[at];
        result = run(db, "INSERT INTO entry VALUES (?1, ?2, ?3)", write->group, entry->index,
                     &entry->bytes);
    }
    if (result == SQLITE_OK) {
        result =
            run(db, "REPLACE INTO record VALUES (?1, ?3)", write->group, 0, &write->record);
    }
    return result;
}

/* One transaction. It is completed before this returns: a store may also do so later. */
static void store_submit(void *opened, const raftz_log_write *writes, size_t count,
                         uint64_t number) {
    store *it = opened;
    int result = run(it->writer, "BEGIN IMMEDIATE", 0, 0, NULL);
    for (size_t at = 0; at < count && result == SQLITE_OK; at++) {
        result = store_write(it->writer, &writes[at]);
    }
    if (result == SQLITE_OK) {
        result = run(it->writer, "COMMIT", 0, 0, NULL);
    }
    const bool is_durable = result == SQLITE_OK;
    const raftz_slice words = raftz_text(is_durable ? NULL : sqlite3_errmsg(it->writer));
    raftz_storage_complete(it->completions, number,
                           is_durable ? RAFTZ_OK : RAFTZ_CALLBACK_FAILED, words, NULL);
    if (!is_durable && !sqlite3_get_autocommit(it->writer)) {
        run(it->writer, "ROLLBACK", 0, 0, NULL);
    }
}

static raftz_status store_read(void *opened, uint32_t group, uint64_t first, uint64_t last,
                               raftz_entries *entries) {
    store *it = opened;
    sqlite3_stmt *statement = NULL;
    int result = sqlite3_prepare_v2(
        it->reader, "SELECT bytes FROM entry WHERE grp = ?1 AND idx BETWEEN ?2 AND ?3 ORDER BY idx",
        -1, &statement, NULL);
    bool wants_more = result == SQLITE_OK;
    raftz_status status = RAFTZ_OK;
    if (wants_more) {
        sqlite3_bind_int64(statement, 1, group);
        sqlite3_bind_int64(statement, 2, (sqlite3_int64)first);
        sqlite3_bind_int64(statement, 3, (sqlite3_int64)last);
    }
    while (wants_more && status == RAFTZ_OK &&
           (result = sqlite3_step(statement)) == SQLITE_ROW) {
        const raftz_slice bytes = {sqlite3_column_blob(statement, 0),
                                   (size_t)sqlite3_column_bytes(statement, 0)};
        status = raftz_entries_push(entries, bytes, &wants_more);
    }
    if (result != SQLITE_ROW && result != SQLITE_DONE) {
        raftz_entries_fail(entries, raftz_text(sqlite3_errmsg(it->reader)));
        status = RAFTZ_CALLBACK_FAILED;
    }
    sqlite3_finalize(statement);
    return status;
}

static uint32_t store_is_low_on_space(void *opened) {
    const store *it = opened;
    struct statvfs disk;
    return statvfs(it->path, &disk) == 0 && disk.f_bavail * disk.f_frsize < RESERVE_BYTES;
}

raftz_storage sqlite_at(char *path) {
    raftz_storage storage = RAFTZ_STORAGE_INIT;
    storage.user_data = path;
    storage.open = store_open;
    storage.destroy = store_destroy;
    storage.load = store_load;
    storage.submit = store_submit;
    storage.read = store_read;
    storage.is_low_on_space = store_is_low_on_space;
    return storage;
}
