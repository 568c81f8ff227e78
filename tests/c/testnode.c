/* One node of a test cluster in a process of its own, on raftz.h alone. It speaks the lines of
 * tests/src/bin/raftz-testnode.rs, so that a test drives nodes of both languages alike:
 *
 *   testnode PLACE ROOT ADDRESS,ADDRESS,… [key=value …]
 *       keys of the configuration, and machine=kv; built with ON_SQLITE the log is in a database
 *
 *   load TAG CLIENTS                             clients that write keys of their own     -> ack …
 *   mix TAG CLIENTS KEYS PACE_MS TIMEOUT_MS SEED clients with a history                   -> op …
 *   read KEY TIMEOUT_MS                          one read through the log, in the history -> op …
 *   stop                                         ends all clients                         -> stopped
 *   pace MS WRITES                               one client, one write every so often     -> paced …
 *   status | dump
 *
 * Machines with flaws, and one that blocks, are for nodes of Rust. Signals are left as they are, as
 * most programs leave them: a library that writes to a closed connection must not end its host.
 */
#include "testnode.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef ON_SQLITE
#include <errno.h>
#include <sys/stat.h>

#include "custom_storage.h"
#endif

/* How long a question may take that takes microseconds on an idle machine. */
#define PATIENCE_MS 30000
/* How long a node that is not wanted any more may take to end. */
#define STOP_MS 10000
/* Entries of the store in one answer. */
#define SCAN_MAX 5000
/* The longest line is a value of several thousand bytes, in hexadecimal. */
#define LINE_BYTES (1 << 16)

static void end_line(void)
{
    putchar('\n');
    fflush(stdout);
    funlockfile(stdout);
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    flockfile(stdout);
    vprintf(format, arguments);
    end_line();
    va_end(arguments);
}

void say_bytes(raftz_slice bytes, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    flockfile(stdout);
    vprintf(format, arguments);
    for (size_t at = 0; at < bytes.len; at++)
        printf("%02x", bytes.data[at]);
    end_line();
    va_end(arguments);
}

void give_up(const char *why)
{
    say("failed %s", why);
    _Exit(EXIT_FAILURE);
}

void must(raftz_status status, raftz_error *const *error)
{
    if (status != RAFTZ_OK)
        give_up(raftz_error_message(*error));
}

void *allocate(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    if (memory == NULL)
        give_up("out of memory");
    return memory;
}

uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void pause_ms(uint64_t millis)
{
    struct timespec pause;
    pause.tv_sec = (time_t)(millis / 1000);
    pause.tv_nsec = (long)(millis % 1000) * 1000000;
    nanosleep(&pause, NULL);
}

/* One client with one write outstanding, for this long and at least so many writes: says how many
 * writes were not done, and how long each of the others took, in microseconds. */
static void pace(raftz_node *node, uint64_t millis, size_t writes)
{
    uint64_t end_us = now_us() + millis * 1000, not_done = 0, *took_us = NULL;
    size_t count = 0, capacity = 0;
    for (uint64_t n = 0;; n++) {
        char key[KEY_BYTES];
        raftz_bytes *command = NULL;
        raftz_error *error = NULL;
        raftz_reply reply = RAFTZ_REPLY_INIT;
        uint64_t begun_us = now_us();
        if (begun_us >= end_us && count >= writes)
            break;
        /* A few keys over and over: the store does not grow. */
        snprintf(key, sizeof key, "pace.%" PRIu64, n % 100);
        must(raftz_kv_set(raftz_text(key), raftz_text("x"), &command, &error), &error);
        raftz_slice bytes = raftz_bytes_slice(command);
        if (raftz_propose_wait(node, bytes, NULL, &reply, &error) == RAFTZ_OK) {
            if (count == capacity) {
                capacity = capacity > 0 ? 2 * capacity : 1024;
                took_us = realloc(took_us, capacity * sizeof *took_us);
                if (took_us == NULL)
                    give_up("out of memory");
            }
            took_us[count++] = now_us() - begun_us;
            raftz_bytes_free(reply.bytes);
        } else {
            not_done++;
            raftz_error_free(error);
        }
        raftz_bytes_free(command);
    }
    flockfile(stdout);
    printf("paced %" PRIu64 " ", not_done);
    for (size_t at = 0; at < count; at++)
        printf(at > 0 ? " %" PRIu64 : "%" PRIu64, took_us[at]);
    end_line();
    free(took_us);
}

static void status(const raftz_node *node)
{
    raftz_state *state = NULL;
    raftz_error *error = NULL;
    raftz_state_info info = RAFTZ_STATE_INFO_INIT;
    must(raftz_node_state(node, &state, &error), &error);
    must(raftz_state_get(state, &info, &error), &error);
    for (size_t at = 0; at < info.peer_count; at++) {
        raftz_peer_info peer = RAFTZ_PEER_INFO_INIT;
        must(raftz_state_peer(state, at, &peer, &error), &error);
        if (!peer.is_connected && peer.unreachable.len > 0) {
            say("peer %" PRIu64 " %.*s", peer.node_id, TEXT(peer.unreachable));
        } else if (!peer.is_connected) {
            say("peer %" PRIu64 " not connected yet", peer.node_id);
        } else if (peer.mode[0] != '\0') {
            say("peer %" PRIu64 " linked; %s, matched %" PRIu64 ", next %" PRIu64 ", %" PRIu64
                " in flight",
                peer.node_id, peer.mode, peer.matched_index, peer.next_index,
                peer.appends_in_flight);
        } else {
            say("peer %" PRIu64 " linked", peer.node_id);
        }
    }
    if (info.damaged_from > 0)
        say("damaged %" PRIu64, info.damaged_from);
    say("status %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu32 " %.*s", info.term,
        info.leader_id, info.commit_index, info.applied_index, info.disk_count, TEXT(info.fault));
    raftz_state_free(state);
}

/* Asks for entries after a key and says them. Gives their last key; NULL if no more follow. */
static raftz_bytes *dump_some(const raftz_node *node, const raftz_slice *after)
{
    raftz_bytes *request = NULL, *last = NULL;
    raftz_error *error = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    raftz_slice key = {NULL, 0}, value = {NULL, 0};
    /* Of this node's own copy: whether the nodes hold the same is what the test wants to know. */
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = PATIENCE_MS;
    must(raftz_kv_scan(raftz_text(""), after, SCAN_MAX, &request, &error), &error);
    must(raftz_read_wait(node, raftz_bytes_slice(request), &opts, &reply, &error), &error);
    must(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &error), &error);
    must(raftz_kv_reply_get(answer, &info, &error), &error);
    if (info.kind != RAFTZ_KV_SCANNED)
        give_up("not an answer to scan");
    for (size_t at = 0; at < info.count; at++) {
        must(raftz_kv_reply_entry(answer, at, &key, &value, &error), &error);
        say("holds %.*s %.*s", TEXT(key), TEXT(value));
    }
    if (info.is_on)
        must(raftz_bytes_copy(key, &last, &error), &error);
    raftz_kv_reply_free(answer);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(request);
    return last;
}

static void dump(const raftz_node *node)
{
    raftz_bytes *last = dump_some(node, NULL);
    while (last != NULL) {
        raftz_slice after = raftz_bytes_slice(last);
        raftz_bytes *next = dump_some(node, &after);
        raftz_bytes_free(last);
        last = next;
    }
    say("end");
}

static void tell(void *user_data, const raftz_event_info *event)
{
    static const char *const NAMES[] = {
        [RAFTZ_EVENT_ROLE] = "Role",
        [RAFTZ_EVENT_LEADER] = "Leader",
        [RAFTZ_EVENT_READY] = "Ready",
        [RAFTZ_EVENT_MEMBERSHIP] = "Membership",
        [RAFTZ_EVENT_PEER_UP] = "PeerUp",
        [RAFTZ_EVENT_PEER_DOWN] = "PeerDown",
        [RAFTZ_EVENT_PEER_REFUSED] = "PeerRefused",
        [RAFTZ_EVENT_NONSENSE] = "Nonsense",
        [RAFTZ_EVENT_HEALED] = "Healed",
        [RAFTZ_EVENT_PEER_STALLED] = "PeerStalled",
        [RAFTZ_EVENT_STORAGE_TROUBLE] = "StorageTrouble",
        [RAFTZ_EVENT_NETWORK_TROUBLE] = "NetworkTrouble",
        [RAFTZ_EVENT_STORAGE_FULL] = "StorageFull",
        [RAFTZ_EVENT_FAULTED] = "Faulted",
    };
    const char *name = NULL;
    (void)user_data;
    if (event->kind < sizeof NAMES / sizeof *NAMES)
        name = NAMES[event->kind];
    say("event %s { term: %" PRIu64 ", index: %" PRIu64 ", peer: %" PRIu64 ", role: %" PRIu32
        ", is_on: %" PRIu32 ", text: \"%.*s\" }",
        name != NULL ? name : "Later", event->term, event->index, event->peer_id, event->role,
        event->is_on, TEXT(event->text));
}

/* Has the log kept in this directory. */
static void keep(raftz_config *config, const char *directory)
{
    raftz_error *error = NULL;
#ifdef ON_SQLITE
    /* As long as the node. */
    static char path[WORDS_BYTES];
    char snapshots[WORDS_BYTES];
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        give_up("no directory for the database");
    if (snprintf(path, sizeof path, "%s/log.db", directory) >= (int)sizeof path)
        give_up("the name of the directory is too long");
    raftz_storage storage = sqlite_at(path);
    must(raftz_config_set_storage(config, &storage, &error), &error);
    if (snprintf(snapshots, sizeof snapshots, "%s/snapshots", directory) >= (int)sizeof snapshots)
        give_up("the name of the directory is too long");
    must(raftz_config_set(config, "snapshot_directory", snapshots, &error), &error);
#else
    must(raftz_config_set_directory(config, directory, &error), &error);
#endif
}

/* The configuration that the arguments describe. */
static raftz_config *configure(int count, char **arguments)
{
    raftz_config *config = NULL;
    raftz_error *error = NULL;
    if (count < 4)
        give_up("usage: testnode PLACE ROOT ADDRESS,ADDRESS,… [key=value …]");
    uint64_t id = strtoull(arguments[1], NULL, 10) + 1, founder = 0;
    must(raftz_config_new(id, "5eed", &config, &error), &error);
    char *rest = NULL;
    for (char *address = strtok_r(arguments[3], ",", &rest); address != NULL;
         address = strtok_r(NULL, ",", &rest)) {
        must(raftz_config_add_founder(config, ++founder, address, &error), &error);
        if (founder == id)
            must(raftz_config_set_listen_address(config, address, &error), &error);
    }
    size_t bytes = strlen(arguments[2]) + sizeof "/node-" + 20;
    char *directory = allocate(1, bytes);
    snprintf(directory, bytes, "%s/node-%" PRIu64, arguments[2], id);
    keep(config, directory);
    free(directory);
    /* So few that logs are shortened all the time, and who was away for a moment needs a snapshot. */
    must(raftz_config_set(config, "snapshot_log_entries", "500", &error), &error);
    must(raftz_config_set(config, "snapshot_retain_bytes", "20000", &error), &error);
    for (int at = 4; at < count; at++) {
        char *value = strchr(arguments[at], '=');
        if (value == NULL)
            give_up("an option is key=value");
        *value++ = '\0';
        if (strcmp(arguments[at], "machine") != 0)
            must(raftz_config_set(config, arguments[at], value, &error), &error);
        else if (strcmp(value, "kv") != 0)
            give_up("a node in C has the key-value store alone");
    }
    raftz_status set =
        raftz_config_set_event_callback(config, RAFTZ_EVENTS_ALL, tell, NULL, NULL, &error);
    must(set, &error);
    return config;
}

/* All clients that run. */
struct clients {
    struct load *load;
    struct mixed *mixed;
};

static void halt(struct clients *clients)
{
    load_halt(clients->load);
    mixed_halt(clients->mixed);
}

static void end(struct clients *clients)
{
    load_end(clients->load);
    mixed_end(clients->mixed);
    *clients = (struct clients){NULL, NULL};
}

/* Carries requests out until there are no more. */
static void serve(raftz_node *node, struct clients *clients)
{
    unsigned lives = 0, count;
    char *line = NULL, tag[64], key[KEY_BYTES], rest;
    size_t capacity = 0, writes;
    uint64_t millis;
    uint32_t timeout_ms;
    struct mix mix;
    while (getline(&line, &capacity, stdin) >= 0) {
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "load %63s %u%c", tag, &count, &rest) == 2) {
            clients->load = load_begin(node, tag, lives++, count, clients->load);
        } else if (sscanf(line, "mix %63s %u %" SCNu64 " %" SCNu64 " %" SCNu32 " %" SCNu64 "%c",
                          mix.tag, &mix.clients, &mix.keys, &mix.pace_ms, &mix.timeout_ms,
                          &mix.seed, &rest) == 6) {
            clients->mixed = mixed_begin(node, &mix, clients->mixed);
        } else if (sscanf(line, "read %191s %" SCNu32 "%c", key, &timeout_ms, &rest) == 2) {
            mixed_read(node, key, timeout_ms);
        } else if (strcmp(line, "stop") == 0) {
            halt(clients);
            end(clients);
            say("stopped");
        } else if (sscanf(line, "pace %" SCNu64 " %zu%c", &millis, &writes, &rest) == 2) {
            pace(node, millis, writes);
        } else if (strcmp(line, "status") == 0) {
            status(node);
        } else if (strcmp(line, "dump") == 0) {
            dump(node);
        } else {
            char why[WORDS_BYTES];
            snprintf(why, sizeof why, "unknown request \"%s\"", line);
            give_up(why);
        }
    }
    free(line);
}

int main(int count, char **arguments)
{
    static char lines[LINE_BYTES];
    /* A line that is written in pieces is torn apart by a kill. */
    setvbuf(stdout, lines, _IOFBF, sizeof lines);
    raftz_config *config = configure(count, arguments);
    raftz_node *node = NULL;
    raftz_error *error = NULL;
    struct clients clients = {NULL, NULL};
    bool is_formatted = false;
    must(raftz_node_is_formatted(config, &is_formatted, &error), &error);
    if (!is_formatted)
        must(raftz_node_bootstrap(config, &error), &error);
    must(raftz_node_start(config, NULL, NULL, &node, &error), &error);
    raftz_config_free(config);
    say("ready");
    serve(node, &clients);
    halt(&clients);
    /* It answers what is on its way. */
    must(raftz_node_stop(node, STOP_MS, &error), &error);
    end(&clients);
    raftz_node_free(node);
    return EXIT_SUCCESS;
}
