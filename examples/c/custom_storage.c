/*
 * A store of one's own: the log of each node lives in an SQLite database, in place of raftz's files.
 *
 * A store keeps, for each group, one record and a run of numbered entries, all of them bytes that it does not look into.
 * Here these are two tables, and what is submitted is one transaction: whole or not at all, and on the disk when it has
 * been committed (`journal_mode = WAL`, `synchronous = FULL`). Then, and only then, it is completed.
 *
 * The program puts the store through raftz's own test of stores. Then a process with three nodes on three databases is
 * killed in the middle of its writes, and another one goes on with what is there: no write that was acknowledged may be
 * missing. A node whose database was lost must not start.
 *
 *     cc custom_storage.c $(pkg-config --cflags --libs raftz) -lsqlite3 -o custom_storage && ./custom_storage
 */
#define _GNU_SOURCE

#include <signal.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "common.h"

/* The store. */

enum { RESERVE_BYTES = 64 << 20 };

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

/* Takes the lock, so that nobody opens a database twice, and makes the tables that are not there yet. */
static bool store_prepare(store *it, raftz_sink *why) {
    char lock[4096];
    snprintf(lock, sizeof lock, "%s-lock", it->path);
    it->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (it->lock < 0 || flock(it->lock, LOCK_EX | LOCK_NB) != 0) {
        raftz_sink_fail(why, raftz_text(it->lock < 0 ? strerror(errno) : "in use by another node"));
        return false;
    }
    const int create = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    const bool is_ready =
        sqlite3_open_v2(it->path, &it->writer, create, NULL) == SQLITE_OK &&
        gives(it->writer, "PRAGMA journal_mode = WAL", "wal") &&
        run(it->writer, "PRAGMA synchronous = FULL", 0, 0, NULL) == SQLITE_OK &&
        gives(it->writer, "PRAGMA synchronous", "2") &&
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
    if (sqlite3_open_v2(it->path, &it->reader, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK) {
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

/* The store whose database is at `path`. */
static raftz_storage sqlite_at(char *path) {
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

/* The nodes. */

enum { WRITES = 300, PATH_MAX_BYTES = 4096 };

typedef struct databases {
    char path[NODES][PATH_MAX_BYTES];
} databases;

static bool configure(raftz_config *config, char *path) {
    raftz_error *error = NULL;
    const raftz_storage storage = sqlite_at(path);
    for (uint64_t founder = 1; founder <= NODES; founder++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%d", 7000 + (int)founder);
        if (!ok("founder", raftz_config_add_founder(config, founder, address, &error), &error)) {
            return false;
        }
    }
    return ok("storage", raftz_config_set_storage(config, &storage, &error), &error);
}

/* Starts all three; the first time it founds them as well. If that fails trio_stop() is due all the same. */
static bool start(trio *nodes, databases *at, bool is_first) {
    raftz_error *error = NULL;
    if (!ok("network", raftz_network_new(&nodes->network, &error), &error)) {
        return false;
    }
    for (uint64_t id = 1; id <= NODES; id++) {
        raftz_config *config = NULL;
        raftz_start_opts how = RAFTZ_START_OPTS_INIT;
        how.network = nodes->network;
        const bool started =
            ok("config", raftz_config_new(id, "5eed", &config, &error), &error) &&
            configure(config, at->path[id - 1]) &&
            (!is_first || ok("found", raftz_node_bootstrap(config, &error), &error)) &&
            ok("start", raftz_node_start(config, NULL, &how, &nodes->node[id - 1], &error), &error);
        raftz_config_free(config);
        if (!started) {
            return false;
        }
    }
    return true;
}

static bool set(raftz_node *node, uint64_t number, uint64_t *index) {
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    char key[32];
    snprintf(key, sizeof key, "key-%" PRIu64, number);
    opts.timeout_ms = PATIENCE_MS;
    const bool is_done =
        ok(key, raftz_kv_set(raftz_text(key), raftz_text("kept"), &command, &error), &error) &&
        ok(key, raftz_propose_wait(node, raftz_bytes_slice(command), &opts, &reply, &error), &error);
    *index = reply.index;
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return is_done;
}

/* The process that is killed: says the number of each write that was acknowledged. */
static int write_until_killed(databases *at, int say) {
    trio nodes = {0};
    uint64_t index = 0;
    bool goes_on = start(&nodes, at, true);
    for (uint64_t number = 1; goes_on; number++) {
        goes_on = set(nodes.node[number % NODES], number, &index) &&
                  write(say, &number, sizeof number) == sizeof number;
    }
    trio_stop(&nodes);
    return EXIT_FAILURE;
}

/* How many writes were acknowledged before the process was killed; 0 if that went wrong. */
static uint64_t acknowledged(databases *at) {
    int ends[2];
    if (pipe(ends) != 0) {
        perror("pipe");
        return 0;
    }
    /* Before there is any node in this process. */
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        _exit(write_until_killed(at, ends[1]));
    }
    close(ends[1]);
    uint64_t last = 0, number = 0;
    while (child > 0 && read(ends[0], &number, sizeof number) == sizeof number) {
        last = number;
        if (number == WRITES) {
            kill(child, SIGKILL);
        }
    }
    close(ends[0]);
    int status = 0;
    const bool was_killed = child > 0 && waitpid(child, &status, 0) == child &&
                            WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    return was_killed ? last : 0;
}

/* Every node has every key up to `last`, and all have the same. */
static bool holds_all(trio *nodes, uint64_t last, uint64_t index) {
    uint64_t digests[NODES] = {0}, keys = 0;
    for (int at = 0; at < NODES; at++) {
        for (uint64_t number = 1; number <= last; number++) {
            char key[32];
            snprintf(key, sizeof key, "key-%" PRIu64, number);
            if (kv_find(nodes->node[at], index, key, "kept") != KV_EQUAL) {
                fprintf(stderr, "node %d lost %s\n", at + 1, key);
                return false;
            }
        }
        if (!kv_digest(nodes->node[at], index, &keys, &digests[at]) || digests[at] != digests[0]) {
            fprintf(stderr, "node %d has another state\n", at + 1);
            return false;
        }
    }
    printf("%" PRIu64 " keys on each of %d nodes, digest %016" PRIx64 "\n", keys, NODES, digests[0]);
    return true;
}

static bool goes_on(databases *at, uint64_t *last) {
    trio nodes = {0};
    uint64_t index = 0;
    /* A new write is behind all old ones: who has applied it has applied them. */
    const bool is_whole = start(&nodes, at, false) && set(nodes.node[0], ++*last, &index) &&
                          holds_all(&nodes, *last, index);
    return trio_stop(&nodes) && is_whole;
}

/* A database that is gone is no new one. */
static bool refuses_a_lost_database(databases *at) {
    raftz_error *error = NULL;
    raftz_config *config = NULL;
    raftz_node *node = NULL;
    const char *suffixes[] = {"", "-wal", "-shm"};
    for (int of = 0; of < 3; of++) {
        char path[PATH_MAX_BYTES + 8];
        snprintf(path, sizeof path, "%s%s", at->path[2], suffixes[of]);
        remove(path);
    }
    bool is_refused = ok("config", raftz_config_new(3, "5eed", &config, &error), &error) &&
                      configure(config, at->path[2]);
    if (is_refused) {
        is_refused = raftz_node_start(config, NULL, NULL, &node, &error) == RAFTZ_STORAGE;
        printf("without its database: %s\n", raftz_error_message(error));
    }
    raftz_error_free(error);
    raftz_node_free(node);
    raftz_config_free(config);
    return is_refused;
}

static bool conforms(const char *folder) {
    raftz_error *error = NULL;
    char path[PATH_MAX_BYTES];
    snprintf(path, sizeof path, "%s/suite.db", folder);
    const raftz_storage storage = sqlite_at(path);
    const uint64_t begun = now_ms();
    if (!ok("conformance", raftz_storage_conformance(&storage, NULL, &error), &error)) {
        return false;
    }
    printf("conformance: no rule broken, in %" PRIu64 " ms\n", now_ms() - begun);
    return true;
}

static bool demonstrate(const char *folder) {
    databases at;
    for (int node = 0; node < NODES; node++) {
        snprintf(at.path[node], sizeof at.path[node], "%s/node-%d.db", folder, node + 1);
    }
    uint64_t last = acknowledged(&at);
    if (last < WRITES) {
        fprintf(stderr, "the process ended by itself after %" PRIu64 " writes\n", last);
        return false;
    }
    printf("killed after %" PRIu64 " acknowledged writes\n", last);
    return goes_on(&at, &last) && goes_on(&at, &last) && refuses_a_lost_database(&at) &&
           conforms(folder);
}

int main(void) {
    char *folder = scratch_new("custom-storage");
    if (folder == NULL) {
        return EXIT_FAILURE;
    }
    const bool as_claimed = demonstrate(folder);
    return report("custom_storage", scratch_remove(folder) && as_claimed);
}
