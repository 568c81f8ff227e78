/*
 * A store of one's own: the log of each node lives in an SQLite database, in place of raftz's files.
 *
 * A store keeps, for each group, one record and a run of numbered entries, all of them bytes that it does not look into;
 * custom_storage_sqlite.c has all of it. This program puts it through raftz's own test of stores. Then a process with
 * three nodes on three databases is killed in the middle of its writes, and another one goes on with what is there: no
 * write that was acknowledged may be missing, though snapshots, which are files beside the database, have taken the
 * place of the oldest ones in the log. A node whose database was lost must not start.
 *
 *     cc custom_storage*.c $(pkg-config --cflags --libs raftz) -lsqlite3 -o custom_storage && ./custom_storage
 */
#define _GNU_SOURCE

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "custom_storage.h"

enum { WRITES = 300, PATH_MAX_BYTES = 4096 };

typedef struct databases {
    char path[NODES][PATH_MAX_BYTES];
} databases;

static bool configure(raftz_config *config, char *path) {
    raftz_error *error = NULL;
    const raftz_storage storage = sqlite_at(path);
    char snapshots[PATH_MAX_BYTES + 16];
    snprintf(snapshots, sizeof snapshots, "%s-snapshots", path);
    for (uint64_t founder = 1; founder <= NODES; founder++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%d", 7000 + (int)founder);
        if (!ok("founder", raftz_config_add_founder(config, founder, address, &error), &error)) {
            return false;
        }
    }
    return ok("storage", raftz_config_set_storage(config, &storage, &error), &error) &&
           ok("snapshots", raftz_config_set(config, "snapshot_directory", snapshots, &error), &error) &&
           ok("often", raftz_config_set(config, "snapshot_log_entries", "100", &error), &error) &&
           ok("retain", raftz_config_set(config, "snapshot_retain_bytes", "0", &error), &error);
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

/* The database does not grow for ever. */
static bool was_shortened(const raftz_node *node) {
    raftz_error *error = NULL;
    raftz_state *state = NULL;
    raftz_state_info info = RAFTZ_STATE_INFO_INIT;
    const bool is_known = ok("state", raftz_node_state(node, &state, &error), &error) &&
                          ok("state", raftz_state_get(state, &info, &error), &error);
    raftz_state_free(state);
    printf("the log goes from entry %" PRIu64 " to %" PRIu64 "; a snapshot stands for what was before\n",
           info.base_index + 1, info.last_index);
    return is_known && info.base_index > 0;
}

static bool goes_on(databases *at, uint64_t *last) {
    trio nodes = {0};
    uint64_t index = 0;
    /* A new write is behind all old ones: who has applied it has applied them. */
    const bool is_whole = start(&nodes, at, false) && set(nodes.node[0], ++*last, &index) &&
                          holds_all(&nodes, *last, index) && was_shortened(nodes.node[0]);
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
