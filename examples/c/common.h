/*
 * What the examples share: errors in words, a directory for the data, three nodes in one process,
 * and words for the key-value store. Nothing here is part of raftz.
 */
#ifndef RAFTZ_EXAMPLES_COMMON_H
#define RAFTZ_EXAMPLES_COMMON_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before the first #include"
#endif

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <raftz.h>

enum {
    /* How long to wait for something that takes milliseconds on an idle machine. */
    PATIENCE_MS = 60000,
    NODES = 3
};

/* Whether a call succeeded. If not, says why and frees the error. */
static inline bool ok(const char *what, raftz_status status, raftz_error **error) {
    if (status == RAFTZ_OK) {
        return true;
    }
    fprintf(stderr, "%s: %s: %s\n", what, raftz_status_name(status), raftz_error_message(*error));
    raftz_error_free(*error);
    *error = NULL;
    return false;
}

/* Says whether an example held what it claims, to a person and to the shell. */
static inline int report(const char *name, bool as_claimed) {
    printf("%s: %s\n", name, as_claimed ? "all as claimed" : "FAILED");
    return as_claimed ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline uint64_t now_ms(void) {
    struct timespec now = {0, 0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A wait before something that failed is tried again. */
static inline void pause_ms(long ms) {
    const struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

/* A new directory under TMPDIR; NULL, and it is said why, if there is none. */
static inline char *scratch_new(const char *name) {
    const char *parent = getenv("TMPDIR");
    if (parent == NULL || *parent == '\0') {
        parent = "/tmp";
    }
    char *path = NULL;
    if (asprintf(&path, "%s/raftz-%s-XXXXXX", parent, name) < 0) {
        perror("scratch");
        return NULL;
    }
    if (mkdtemp(path) == NULL) {
        perror(path);
        free(path);
        return NULL;
    }
    return path;
}

static inline int scratch_entry(const char *path, const struct stat *status, int kind,
                                struct FTW *where) {
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

/* Removes such a directory with all that is in it, and frees its name. */
static inline bool scratch_remove(char *path) {
    const bool is_gone = path == NULL || nftw(path, scratch_entry, 8, FTW_DEPTH | FTW_PHYS) == 0;
    if (!is_gone) {
        perror(path);
    }
    free(path);
    return is_gone;
}

/* Three nodes in a network of this process. */
typedef struct trio {
    raftz_network *network;
    raftz_node *node[NODES];
} trio;

/* What differs between one such trio and another; NULL is the default. */
typedef struct trio_opts {
    /* Where the nodes keep their logs; otherwise in memory. */
    const char *directory;
    /* Which state machine; otherwise the key-value store. */
    const raftz_machine *machine;
    /* Where events of these kinds go. */
    raftz_queue *events;
    uint64_t event_kinds;
} trio_opts;

static inline bool trio_configure(raftz_config *config, uint64_t id, const trio_opts *opts) {
    raftz_error *error = NULL;
    for (uint64_t founder = 1; founder <= NODES; founder++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%d", 7000 + (int)founder);
        if (!ok("founder", raftz_config_add_founder(config, founder, address, &error), &error)) {
            return false;
        }
    }
    if (opts->directory != NULL) {
        char path[4096];
        snprintf(path, sizeof path, "%s/node-%" PRIu64, opts->directory, id);
        if (!ok("directory", raftz_config_set_directory(config, path, &error), &error) ||
            !ok("found", raftz_node_bootstrap(config, &error), &error)) {
            return false;
        }
    }
    return opts->events == NULL ||
           ok("events",
              raftz_config_set_event_queue(config, opts->event_kinds, opts->events, &error),
              &error);
}

/* Founds and starts all three. If that fails trio_stop() is due all the same. */
static inline bool trio_start(trio *nodes, const trio_opts *opts) {
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
            trio_configure(config, id, opts) &&
            ok("start", raftz_node_start(config, opts->machine, &how, &nodes->node[id - 1], &error),
               &error);
        raftz_config_free(config);
        if (!started) {
            return false;
        }
    }
    return true;
}

/* Stops a node, waits until all of it has ended, and frees it. */
static inline bool node_end(raftz_node **node) {
    raftz_error *error = NULL;
    const bool stopped =
        *node == NULL || ok("stop", raftz_node_stop(*node, PATIENCE_MS, &error), &error);
    raftz_node_free(*node);
    *node = NULL;
    return stopped;
}

/* Stops those that run, and frees all. */
static inline bool trio_stop(trio *nodes) {
    bool stopped = true;
    for (int at = 0; at < NODES; at++) {
        stopped = node_end(&nodes->node[at]) && stopped;
    }
    raftz_network_free(nodes->network);
    nodes->network = NULL;
    return stopped;
}

/* Asks a node's own copy of the state, once it holds everything up to `index`. */
static inline bool ask(const raftz_node *node, uint64_t index, raftz_slice request,
                       raftz_reply *reply) {
    raftz_error *error = NULL;
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = PATIENCE_MS;
    return ok("wait", raftz_node_wait_for_applied(node, index, PATIENCE_MS, &error), &error) &&
           ok("read", raftz_read_wait(node, request, &opts, reply, &error), &error);
}

/* The same of the key-value store. Takes `request` over; the answer's words live as long as
 * `answer`, to be freed with raftz_kv_reply_free(). */
static inline bool kv_ask(const raftz_node *node, uint64_t index, raftz_bytes *request,
                          raftz_kv_reply **answer, raftz_kv_reply_info *info) {
    raftz_error *error = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    const bool answered =
        ask(node, index, raftz_bytes_slice(request), &reply) &&
        ok("answer",
           raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, answer, &error),
           &error) &&
        ok("answer", raftz_kv_reply_get(*answer, info, &error), &error);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(request);
    return answered;
}

/* How many keys a node has, and the digest of all of them and their values. */
static inline bool kv_digest(const raftz_node *node, uint64_t index, uint64_t *keys,
                             uint64_t *digest) {
    raftz_error *error = NULL;
    raftz_bytes *request = NULL;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    const bool answered = ok("digest", raftz_kv_digest(&request, &error), &error) &&
                          kv_ask(node, index, request, &answer, &info);
    *keys = info.count;
    *digest = (uint64_t)info.number;
    raftz_kv_reply_free(answer);
    return answered;
}

/* What a node has under a key, compared with a value. */
typedef enum { KV_EQUAL, KV_DIFFERENT, KV_ABSENT, KV_NO_ANSWER } kv_found;

static inline kv_found kv_find(const raftz_node *node, uint64_t index, const char *key,
                               const char *value) {
    raftz_error *error = NULL;
    raftz_bytes *request = NULL;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    kv_found found = KV_NO_ANSWER;
    if (ok("get", raftz_kv_get(raftz_text(key), &request, &error), &error) &&
        kv_ask(node, index, request, &answer, &info)) {
        const bool is_equal = info.is_on && info.value.len == strlen(value) &&
                              memcmp(info.value.data, value, info.value.len) == 0;
        found = is_equal ? KV_EQUAL : info.is_on ? KV_DIFFERENT : KV_ABSENT;
    }
    raftz_kv_reply_free(answer);
    return found;
}

#endif
