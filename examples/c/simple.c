/*
 * One node with its data on disk: write, read, stop, start again, and find everything there.
 *
 * A cluster of one is a whole cluster: it elects itself, and what it acknowledges is on its disk.
 * The file needs nothing but raftz.h, to be pasted and changed:
 *
 *     cc simple.c $(pkg-config --cflags --libs raftz) -o simple && ./simple
 *
 * It keeps its data in the directory that it is given, and otherwise in one that it removes again.
 */
#define _XOPEN_SOURCE 700

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <raftz.h>

/* How long to wait for something that takes milliseconds on an idle machine. */
enum { PATIENCE_MS = 30000 };

/* Whether a call succeeded. If not, says why and frees the error. */
static bool ok(const char *what, raftz_status status, raftz_error **error) {
    if (status == RAFTZ_OK) {
        return true;
    }
    fprintf(stderr, "%s: %s: %s\n", what, raftz_status_name(status), raftz_error_message(*error));
    raftz_error_free(*error);
    *error = NULL;
    return false;
}

static raftz_node *start(const raftz_config *config) {
    raftz_error *error = NULL;
    bool is_formatted = false;
    if (!ok("look", raftz_node_is_formatted(config, &is_formatted, &error), &error)) {
        return NULL;
    }
    /* Once in the life of a cluster. A start never formats, so that a lost disk is noticed. */
    if (!is_formatted && !ok("found", raftz_node_bootstrap(config, &error), &error)) {
        return NULL;
    }
    raftz_node *node = NULL;
    ok("start", raftz_node_start(config, NULL, NULL, &node, &error), &error);
    return node;
}

/* Stops a node and waits until all of it has ended. */
static bool stop(raftz_node *node) {
    raftz_error *error = NULL;
    const bool stopped = ok("stop", raftz_node_stop(node, PATIENCE_MS, &error), &error);
    raftz_node_free(node);
    return stopped;
}

static bool set(raftz_node *node, const char *key, const char *value, uint64_t *index) {
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    opts.timeout_ms = PATIENCE_MS;
    const bool done =
        ok(key, raftz_kv_set(raftz_text(key), raftz_text(value), &command, &error), &error) &&
        ok(key, raftz_propose_wait(node, raftz_bytes_slice(command), &opts, &reply, &error),
           &error);
    if (done) {
        printf("set %s: entry %" PRIu64 " of term %" PRIu64 "\n", key, reply.index, reply.term);
        *index = reply.index;
    }
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return done;
}

/* Reads the node's own copy, once it holds everything up to `index`. */
static bool expect(const raftz_node *node, uint64_t index, const char *key, const char *expected) {
    raftz_error *error = NULL;
    raftz_bytes *request = NULL;
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = PATIENCE_MS;
    bool is_right =
        ok(key, raftz_node_wait_for_applied(node, index, PATIENCE_MS, &error), &error) &&
        ok(key, raftz_kv_get(raftz_text(key), &request, &error), &error) &&
        ok(key, raftz_read_wait(node, raftz_bytes_slice(request), &opts, &reply, &error), &error) &&
        ok(key, raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &error),
           &error) &&
        ok(key, raftz_kv_reply_get(answer, &info, &error), &error);
    if (is_right) {
        const char *value = (const char *)info.value.data;
        printf("get %s: %.*s\n", key, (int)info.value.len, info.is_on ? value : "");
        is_right = info.kind == RAFTZ_KV_VALUE && info.is_on &&
                   info.value.len == strlen(expected) &&
                   memcmp(value, expected, info.value.len) == 0;
        if (!is_right) {
            fprintf(stderr, "%s should be \"%s\"\n", key, expected);
        }
    }
    raftz_kv_reply_free(answer);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(request);
    return is_right;
}

static bool run(const raftz_config *config) {
    uint64_t index = 0;
    raftz_node *node = start(config);
    if (node == NULL) {
        return false;
    }
    const bool wrote = set(node, "greeting", "hello, log", &index) &&
                       set(node, "city", "Torino", &index) &&
                       expect(node, index, "greeting", "hello, log");
    if (!stop(node) || !wrote) {
        return false;
    }
    printf("stopped; starting again on the same directory\n");
    node = start(config);
    if (node == NULL) {
        return false;
    }
    const bool is_there = expect(node, index, "greeting", "hello, log") &&
                          expect(node, index, "city", "Torino");
    return stop(node) && is_there;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *where) {
    (void)status;
    (void)kind;
    (void)where;
    return remove(path);
}

int main(int argc, char **argv) {
    char temporary[] = "/tmp/raftz-simple-XXXXXX";
    const char *directory = argc > 1 ? argv[1] : mkdtemp(temporary);
    if (directory == NULL) {
        perror(temporary);
        return EXIT_FAILURE;
    }
    raftz_error *error = NULL;
    raftz_config *config = NULL;
    /* Nobody else is in this cluster, so nobody will ever call at the founder's address. */
    const bool as_claimed =
        ok("config", raftz_config_new(1, "c1a5", &config, &error), &error) &&
        ok("config", raftz_config_add_founder(config, 1, "127.0.0.1:7001", &error), &error) &&
        ok("config", raftz_config_set_directory(config, directory, &error), &error) && run(config);
    raftz_config_free(config);
    if (argc <= 1 && nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0) {
        perror(directory);
        return EXIT_FAILURE;
    }
    printf(as_claimed ? "simple: all as claimed\n" : "simple: FAILED\n");
    return as_claimed ? EXIT_SUCCESS : EXIT_FAILURE;
}
