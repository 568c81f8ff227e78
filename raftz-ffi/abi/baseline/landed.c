/* A program as those have one who use raftz: all that a program gives and is given, in use. What it checks is promised for
 * later versions, too, so it says nothing of words, of version numbers, or of what is not there yet. A copy of it lies in
 * raftz-ffi/abi/baseline with the header of its day, and needs nothing else of this folder. */
#include <raftz.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            fflush(stderr);                                                                        \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* The error of the last call; OK looks at it. */
static raftz_error *failure;

static void ok(raftz_status status, int line, const char *call) {
    if (status != RAFTZ_OK) {
        fprintf(stderr, "%s:%d: %s is %s: %s\n", __FILE__, line, call, raftz_status_name(status),
                raftz_error_message(failure));
        fflush(stderr);
        _exit(1);
    }
    CHECK(failure == NULL);
}
#define OK(call) ok((call), __LINE__, #call)

/* A struct that the library fills, with something behind it that it must not touch, however large it has become. */
#define OUT(type, name)                                                                            \
    struct {                                                                                       \
        type it;                                                                                   \
        unsigned char behind[256];                                                                 \
    } name;                                                                                        \
    memset(&name, 0xa5, sizeof name);                                                              \
    name.it.size = sizeof(type)
#define FILLED(type, name)                                                                         \
    do {                                                                                           \
        CHECK(name.it.size == sizeof(type));                                                       \
        for (size_t behind = 0; behind < sizeof name.behind; behind++) {                           \
            CHECK(name.behind[behind] == 0xa5);                                                    \
        }                                                                                          \
    } while (0)

static void moment(void) {
    struct timespec some = {0, 2000000};
    nanosleep(&some, NULL);
}

static int same(raftz_slice slice, const char *text) {
    return slice.len == strlen(text) && (slice.len == 0 || memcmp(slice.data, text, slice.len) == 0);
}

/* What callbacks count. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct count {
    unsigned created, destroyed, applied, queried, begun, ended, restored, opened, closed, done, events, dropped, lines, freed;
};
static struct count count;

static void add(unsigned *to, unsigned number) {
    pthread_mutex_lock(&lock);
    *to += number;
    pthread_mutex_unlock(&lock);
}

static unsigned now(const unsigned *of) {
    pthread_mutex_lock(&lock);
    unsigned number = *of;
    pthread_mutex_unlock(&lock);
    return number;
}

/* A machine: it counts commands, and answers each with what it was. */

struct machine {
    uint64_t commands;
};

static raftz_status machine_create(void *user_data, raftz_sink *why, void **machine) {
    CHECK(why != NULL);
    CHECK(user_data == &count);
    *machine = calloc(1, sizeof(struct machine));
    CHECK(*machine != NULL);
    add(&count.created, 1);
    return RAFTZ_OK;
}

static void machine_destroy(void *machine) {
    free(machine);
    add(&count.destroyed, 1);
}

static raftz_status machine_apply(void *made, const raftz_command *commands, size_t number,
                                  raftz_replies *replies) {
    struct machine *machine = made;
    for (size_t at = 0; at < number; at++) {
        CHECK(commands[at].index > 0 && commands[at].term > 0 && commands[at].log_time_us > 0);
        CHECK(at == 0 || commands[at].index > commands[at - 1].index);
        if (same(commands[at].data, "reject")) {
            CHECK(raftz_replies_reject(replies, raftz_text("no")) == RAFTZ_OK);
        } else if (same(commands[at].data, "fail")) {
            CHECK(raftz_replies_fail(replies, raftz_text("as the test wants")) == RAFTZ_OK);
            return RAFTZ_CALLBACK_FAILED;
        } else {
            CHECK(raftz_replies_push(replies, commands[at].data) == RAFTZ_OK);
        }
        machine->commands++;
    }
    add(&count.applied, (unsigned)number);
    return RAFTZ_OK;
}

static raftz_status machine_query(void *made, raftz_slice request, raftz_sink *reply) {
    struct machine *machine = made;
    char text[32];
    add(&count.queried, 1);
    if (same(request, "fail")) {
        CHECK(raftz_sink_fail(reply, raftz_text("as the test wants")) == RAFTZ_OK);
        return RAFTZ_CALLBACK_FAILED;
    }
    if (same(request, "reject")) {
        CHECK(raftz_sink_reject(reply) == RAFTZ_OK);
    }
    snprintf(text, sizeof text, "%llu", (unsigned long long)machine->commands);
    return raftz_sink_write(reply, raftz_text(text));
}

struct frozen {
    uint64_t commands;
    int is_read;
};

static raftz_status machine_snapshot_begin(void *made, raftz_sink *why, void **snapshot) {
    CHECK(why != NULL);
    struct frozen *frozen = calloc(1, sizeof *frozen);
    CHECK(frozen != NULL);
    frozen->commands = ((struct machine *)made)->commands;
    *snapshot = frozen;
    add(&count.begun, 1);
    return RAFTZ_OK;
}

static raftz_status machine_snapshot_read(void *snapshot, raftz_sink *piece) {
    struct frozen *frozen = snapshot;
    raftz_slice bytes = {(const uint8_t *)&frozen->commands, sizeof frozen->commands};
    return frozen->is_read++ ? RAFTZ_OK : raftz_sink_write(piece, bytes);
}

static void machine_snapshot_end(void *snapshot) {
    free(snapshot);
    add(&count.ended, 1);
}

static raftz_status machine_restore(void *made, raftz_source *source, raftz_sink *why) {
    CHECK(why != NULL);
    uint8_t bytes[64];
    size_t have = 0, more = 1;
    while (more > 0) {
        CHECK(have < sizeof bytes);
        CHECK(raftz_source_read(source, bytes + have, sizeof bytes - have, &more) == RAFTZ_OK);
        have += more;
    }
    CHECK(have == sizeof(uint64_t));
    memcpy(&((struct machine *)made)->commands, bytes, sizeof(uint64_t));
    add(&count.restored, 1);
    return RAFTZ_OK;
}

static raftz_machine whole_machine(void) {
    raftz_machine table = RAFTZ_MACHINE_INIT;
    table.user_data = &count;
    table.create = machine_create;
    table.destroy = machine_destroy;
    table.apply = machine_apply;
    table.query = machine_query;
    table.snapshot_begin = machine_snapshot_begin;
    table.snapshot_read = machine_snapshot_read;
    table.snapshot_end = machine_snapshot_end;
    table.restore = machine_restore;
    return table;
}

/* A store in memory. */

struct kept {
    uint64_t index;
    size_t len;
    uint8_t *bytes;
};

struct store {
    pthread_mutex_t lock;
    struct kept record, entries[256];
    size_t number;
    raftz_completions *completions;
    int is_open;
};

static void keep(struct kept *kept, uint64_t index, raftz_slice from) {
    free(kept->bytes);
    kept->bytes = malloc(from.len + 1);
    CHECK(kept->bytes != NULL);
    memcpy(kept->bytes, from.data, from.len);
    kept->index = index;
    kept->len = from.len;
}

static raftz_status store_open(void *user_data, raftz_completions *completions, raftz_sink *why,
                               void **store) {
    struct store *opened = user_data;
    if (opened->is_open) {
        CHECK(raftz_sink_fail(why, raftz_text("in use")) == RAFTZ_OK);
        return RAFTZ_CALLBACK_FAILED;
    }
    opened->is_open = 1;
    opened->completions = completions;
    *store = opened;
    add(&count.opened, 1);
    return RAFTZ_OK;
}

static void store_destroy(void *store) {
    ((struct store *)store)->is_open = 0;
    add(&count.closed, 1);
}

static raftz_status store_load(void *made, uint32_t group, raftz_sink *record) {
    struct store *store = made;
    raftz_slice bytes = {store->record.bytes, store->record.len};
    CHECK(group > 0);
    return raftz_sink_write(record, bytes);
}

static void store_submit(void *made, const raftz_log_write *writes, size_t number, uint64_t submission) {
    struct store *store = made;
    raftz_slice no_words = {NULL, 0};
    raftz_error *error = NULL;
    pthread_mutex_lock(&store->lock);
    for (size_t at = 0; at < number; at++) {
        const raftz_log_write *write = &writes[at];
        size_t left = 0;
        CHECK(write->group > 0 && write->record.len > 0);
        for (size_t of = 0; of < store->number; of++) {
            struct kept *entry = &store->entries[of];
            if ((write->remove_from > 0 && entry->index >= write->remove_from)
                || entry->index <= write->remove_upto) {
                free(entry->bytes);
            } else {
                store->entries[left++] = *entry;
            }
        }
        store->number = left;
        for (size_t of = 0; of < write->entry_count; of++) {
            CHECK(store->number < sizeof store->entries / sizeof *store->entries);
            CHECK(write->entries[of].index > 0 && write->entries[of].term > 0);
            store->entries[store->number] = (struct kept){0, 0, NULL};
            keep(&store->entries[store->number++], write->entries[of].index, write->entries[of].bytes);
        }
        keep(&store->record, 0, write->record);
    }
    pthread_mutex_unlock(&store->lock);
    CHECK(raftz_storage_complete(store->completions, submission, RAFTZ_OK, no_words, &error) == RAFTZ_OK);
}

static raftz_status store_read(void *made, uint32_t group, uint64_t first, uint64_t last,
                               raftz_entries *entries) {
    struct store *store = made;
    raftz_status status = RAFTZ_OK;
    bool wants_more = true;
    CHECK(group > 0 && first <= last);
    pthread_mutex_lock(&store->lock);
    for (size_t at = 0; at < store->number && wants_more && status == RAFTZ_OK; at++) {
        struct kept *entry = &store->entries[at];
        if (entry->index >= first && entry->index <= last) {
            raftz_slice bytes = {entry->bytes, entry->len};
            status = raftz_entries_push(entries, bytes, &wants_more);
        }
    }
    pthread_mutex_unlock(&store->lock);
    return status;
}

static raftz_status store_idle(void *store, raftz_sink *why) {
    CHECK(store != NULL && why != NULL);
    return RAFTZ_OK;
}

static uint32_t store_is_low(void *store) {
    CHECK(store != NULL);
    return 0;
}

static uint64_t store_bytes(void *store) {
    CHECK(store != NULL);
    return 4096;
}

static raftz_storage whole_store(struct store *store) {
    raftz_storage table = RAFTZ_STORAGE_INIT;
    table.user_data = store;
    table.open = store_open;
    table.destroy = store_destroy;
    table.load = store_load;
    table.submit = store_submit;
    table.read = store_read;
    table.idle = store_idle;
    table.is_low_on_space = store_is_low;
    table.log_bytes = store_bytes;
    table.close = store_idle;
    return table;
}

static void store_empty(struct store *store) {
    CHECK(!store->is_open);
    for (size_t at = 0; at < store->number; at++) {
        free(store->entries[at].bytes);
    }
    free(store->record.bytes);
}

/* What a node tells. */

static void on_event(void *user_data, const raftz_event_info *event) {
    CHECK(user_data == &count && event->size >= sizeof *event && event->node_id > 0);
    CHECK(event->group > 0 && event->kind != RAFTZ_EVENT_COMPLETION && event->outcome_count == 0);
    add(&count.events, 1);
}

static void on_drop(void *user_data) {
    CHECK(user_data == &count);
    add(&count.dropped, 1);
}

static void on_line(void *user_data, uint32_t level, raftz_slice line) {
    CHECK(user_data == &count && level >= RAFTZ_LOG_ERROR && level <= RAFTZ_LOG_TRACE && line.len > 0);
    add(&count.lines, 1);
}

static void on_free(void *context) {
    CHECK(context == &count);
    add(&count.freed, 1);
}

static void looks_done(const raftz_outcome *outcome, int is_write) {
    CHECK(outcome->status == RAFTZ_OK && outcome->message.len == 0 && outcome->reply.len > 0);
    CHECK((outcome->index > 0) == is_write && (outcome->term > 0) == is_write);
}

static void on_write(void *user_data, const raftz_outcome *outcome) {
    looks_done(outcome, 1);
    add(user_data, 1);
}

static void on_read(void *user_data, const raftz_outcome *outcome) {
    looks_done(outcome, 0);
    add(user_data, 1);
}

static void on_batch(void *user_data, const raftz_outcome *outcomes, size_t number) {
    CHECK(number == 3);
    for (size_t at = 0; at < number; at++) {
        looks_done(&outcomes[at], 1);
        CHECK(at == 0 || outcomes[at].index > outcomes[at - 1].index);
        CHECK(!(outcomes[at].flags & RAFTZ_OUTCOME_UNKNOWN));
        CHECK(((outcomes[at].flags & RAFTZ_OUTCOME_REJECTED) != 0) == (at == 1));
    }
    CHECK(same(outcomes[0].reply, "a") && same(outcomes[1].reply, "no") && same(outcomes[2].reply, "c"));
    add(user_data, 1);
}

static void on_transfer(void *user_data, const raftz_outcome *outcome) {
    CHECK(outcome->status == RAFTZ_OK ? outcome->leader_id > 0 : outcome->message.len > 0);
    add(user_data, 1);
}

static raftz_config *new_config(uint64_t id, unsigned members) {
    raftz_config *config = NULL;
    OK(raftz_config_new(id, "1a", &config, &failure));
    for (unsigned member = 1; member <= members; member++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%u", 7000 + member);
        OK(raftz_config_add_founder(config, member, address, &failure));
    }
    OK(raftz_config_set_number(config, "propose_timeout_ms", 60000, &failure));
    OK(raftz_config_set_number(config, "read_timeout_ms", 60000, &failure));
    OK(raftz_config_set(config, "election_timeout_max_ms", "1000", &failure));
    OK(raftz_config_set(config, "election_timeout_min_ms", "500", &failure));
    OK(raftz_config_set_bool(config, "forward", 1, &failure));
    OK(raftz_config_validate(config, &failure));
    return config;
}

/* Takes completions from a queue until there were so many, and events until one came. */
static void drain(raftz_queue *queue, unsigned completions, unsigned events) {
    while (completions > 0 || events > 0) {
        raftz_event *event = NULL;
        OUT(raftz_event_info, info);
        OK(raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure));
        OK(raftz_event_get(event, &info.it, &failure));
        FILLED(raftz_event_info, info);
        if (info.it.kind == RAFTZ_EVENT_COMPLETION) {
            CHECK(info.it.user_data == &count && info.it.outcome_count > 0 && completions > 0);
            for (size_t at = 0; at < info.it.outcome_count; at++) {
                CHECK(info.it.outcomes[at].status == RAFTZ_OK && info.it.outcomes[at].reply.len > 0);
            }
            completions--;
        } else if (events > 0) {
            events--;
        }
        raftz_event_free(event);
    }
}

static void writes(raftz_node *node, raftz_queue *queue) {
    raftz_slice commands[3] = {raftz_text("a"), raftz_text("reject"), raftz_text("c")};
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_bytes *bytes = NULL;
    OUT(raftz_reply, reply);
    unsigned before = now(&count.done);

    OK(raftz_propose_wait(node, commands[0], NULL, &reply.it, &failure));
    FILLED(raftz_reply, reply);
    CHECK(reply.it.index > 0 && reply.it.term > 0 && reply.it.flags == 0);
    CHECK(same(raftz_bytes_slice(reply.it.bytes), "a"));
    raftz_bytes_free(reply.it.bytes);

    opts.timeout_ms = 60000;
    opts.forward = RAFTZ_FORWARD_YES;
    opts.expected_term = reply.it.term;
    OK(raftz_propose(node, commands[0], &opts, on_write, &count.done, &failure));
    /* As an older program has them: without the last field. */
    opts.size = offsetof(raftz_propose_opts, expected_term);
    opts.expected_term = UINT64_MAX;
    OK(raftz_propose_batch(node, commands, 3, &opts, on_batch, &count.done, &failure));
    OK(raftz_bytes_wrap(commands[2], on_free, &count, &bytes, &failure));
    OK(raftz_propose_bytes(node, bytes, &opts, on_write, &count.done, &failure));
    OK(raftz_propose_queued(node, commands, 3, &opts, queue, &count, &failure));
    drain(queue, 1, 0);
    while (now(&count.done) < before + 3) {
        moment();
    }
}

static void reads(raftz_node *node, raftz_queue *queue) {
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    unsigned before = now(&count.done);
    OUT(raftz_reply, reply);
    OK(raftz_read_wait(node, raftz_text("q"), NULL, &reply.it, &failure));
    FILLED(raftz_reply, reply);
    CHECK(raftz_bytes_slice(reply.it.bytes).len > 0);
    raftz_bytes_free(reply.it.bytes);
    opts.level = RAFTZ_READ_BOUNDED;
    opts.timeout_ms = 60000;
    opts.max_age_ms = 60000;
    OK(raftz_read(node, raftz_text("q"), &opts, on_read, &count.done, &failure));
    opts.size = offsetof(raftz_read_opts, index);
    opts.level = RAFTZ_READ_STALE;
    OK(raftz_read_queued(node, raftz_text("q"), &opts, queue, &count, &failure));
    drain(queue, 1, 0);
    while (now(&count.done) < before + 1) {
        moment();
    }
    CHECK(raftz_read_wait(node, raftz_text("fail"), &opts, &reply.it, &failure) == RAFTZ_READ_FAILED);
    CHECK(raftz_error_status(failure) == RAFTZ_READ_FAILED && strlen(raftz_error_message(failure)) > 0);
    CHECK(!raftz_error_is_outcome_unknown(failure) && raftz_error_os_errno(failure) == 0);
    raftz_error_free(failure);
    failure = NULL;
}

static void looks(raftz_node *node) {
    raftz_state *state = NULL;
    raftz_bytes *bytes = NULL;
    OUT(raftz_state_info, info);
    OUT(raftz_metrics_info, metrics);
    OUT(raftz_peer_metrics_info, peer);
    OUT(raftz_standing_info, standing);
    OK(raftz_node_state(node, &state, &failure));
    OK(raftz_state_get(state, &info.it, &failure));
    FILLED(raftz_state_info, info);
    CHECK(info.it.node_id == raftz_node_id(node) && info.it.role == RAFTZ_ROLE_LEADER && info.it.term > 0);
    CHECK(info.it.commit_index > 0 && info.it.fault.len == 0 && info.it.is_shut_down == 0);
    raftz_state_free(state);
    OK(raftz_metrics(node, &metrics.it, &failure));
    FILLED(raftz_metrics_info, metrics);
    CHECK(metrics.it.node_id == info.it.node_id && metrics.it.proposals_committed > 0);
    CHECK(metrics.it.propose.count > 0 && metrics.it.reads > 0);
    OK(raftz_metrics_peer(node, 9, &peer.it, &failure));
    FILLED(raftz_peer_metrics_info, peer);
    CHECK(peer.it.node_id == 9 && peer.it.match_index == 0);
    OK(raftz_watch_wait(node, 0, 0, &standing.it, &failure));
    FILLED(raftz_standing_info, standing);
    CHECK(standing.it.version > 0 && standing.it.leader_id == info.it.node_id && standing.it.is_ready == 1);
    OK(raftz_metrics_text(node, &bytes, &failure));
    CHECK(raftz_bytes_slice(bytes).len > 0);
    raftz_bytes_free(bytes);
}

static uint64_t commands_of(raftz_node *node) {
    raftz_reply reply = RAFTZ_REPLY_INIT;
    char text[32] = "";
    OK(raftz_read_wait(node, raftz_text("q"), NULL, &reply, &failure));
    raftz_slice said = raftz_bytes_slice(reply.bytes);
    CHECK(said.len < sizeof text);
    memcpy(text, said.data, said.len);
    raftz_bytes_free(reply.bytes);
    return strtoull(text, NULL, 10);
}

static void stop(raftz_node *node) {
    OK(raftz_node_stop(node, 60000, &failure));
    raftz_node_free(node);
}

/* One node with a machine and a store of its own, twice: the second life has what the first one did. */
static void own_parts(int is_short) {
    static struct store stores[2] = {{.lock = PTHREAD_MUTEX_INITIALIZER}, {.lock = PTHREAD_MUTEX_INITIALIZER}};
    struct store *store = &stores[is_short];
    raftz_storage storage = whole_store(store);
    raftz_machine machine = whole_machine();
    raftz_queue_opts queue_opts = RAFTZ_QUEUE_OPTS_INIT;
    raftz_config *config = new_config(1, 1);
    raftz_queue *queue = NULL;
    raftz_node *node = NULL;
    bool is_formatted = true;
    uint64_t commands = 0, leader = 0;
    if (is_short) {
        /* As from before there was anything that is not required. */
        storage.size = offsetof(raftz_storage, idle);
        machine.size = offsetof(raftz_machine, snapshot_begin);
        queue_opts.size = offsetof(raftz_queue_opts, events_max);
    }
    queue_opts.calls_max = 1000;
    OK(raftz_queue_new(&queue_opts, &queue, &failure));
    CHECK(raftz_queue_fd(queue) >= 0);
    OK(raftz_config_set_storage(config, &storage, &failure));
    OK(raftz_config_set_event_callback(config, RAFTZ_EVENTS_ALL, on_event, &count, on_drop, &failure));
    OK(raftz_config_set_log(config, RAFTZ_LOG_TRACE, on_line, &count, on_drop, &failure));
    OK(raftz_node_is_formatted(config, &is_formatted, &failure));
    CHECK(!is_formatted);
    OK(raftz_node_bootstrap(config, &failure));
    for (unsigned life = 0; life < 2; life++) {
        struct count before = count;
        OK(raftz_node_start(config, &machine, NULL, &node, &failure));
        OK(raftz_node_wait_for_leader(node, 60000, &leader, &failure));
        CHECK(leader == 1);
        CHECK(commands_of(node) == commands);
        writes(node, queue);
        reads(node, queue);
        looks(node);
        commands = commands_of(node);
        CHECK(commands > 0);
        CHECK(now(&count.events) > before.events && now(&count.lines) > before.lines);
        stop(node);
        CHECK(count.created == before.created + 1 && count.destroyed == before.destroyed + 1);
        CHECK(count.opened == before.opened + 1 && count.closed == before.closed + 1);
    }
    raftz_config_free(config);
    CHECK(raftz_queue_dropped(queue) == 0);
    OK(raftz_queue_close(queue, &failure));
    raftz_queue_free(queue);
    store_empty(store);
}

/* A directory and snapshots: the second life begins with one. */
static void snapshots(const char *folder) {
    raftz_machine machine = whole_machine();
    raftz_config *config = new_config(1, 1);
    raftz_node *node = NULL;
    char path[4096];
    uint64_t index = 0;
    snprintf(path, sizeof path, "%s/directory", folder);
    OK(raftz_config_set_directory(config, path, &failure));
    OK(raftz_config_set(config, "segment_bytes", "8m", &failure));
    OK(raftz_config_set(config, "reserve_bytes", "0", &failure));
    OK(raftz_node_bootstrap(config, &failure));
    OK(raftz_node_start(config, &machine, NULL, &node, &failure));
    for (unsigned at = 0; at < 5; at++) {
        raftz_reply reply = RAFTZ_REPLY_INIT;
        OK(raftz_propose_wait(node, raftz_text("a"), NULL, &reply, &failure));
        raftz_bytes_free(reply.bytes);
    }
    OK(raftz_node_snapshot(node, 60000, &index, &failure));
    CHECK(index > 0 && count.begun > 0);
    stop(node);
    unsigned before = count.restored;
    OK(raftz_node_start(config, &machine, NULL, &node, &failure));
    CHECK(commands_of(node) == 5);
    stop(node);
    CHECK(count.restored > before && count.begun == count.ended);
    raftz_config_free(config);
}

/* A machine that fails stops its node and nothing else. */
static void fault(void) {
    raftz_machine machine = whole_machine();
    raftz_config *config = new_config(1, 1);
    raftz_node *node = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    OK(raftz_node_start(config, &machine, NULL, &node, &failure));
    raftz_status status = raftz_propose_wait(node, raftz_text("fail"), NULL, &reply, &failure);
    CHECK(status == RAFTZ_UNKNOWN_FAULTED && raftz_status_is_outcome_unknown(status));
    CHECK(raftz_error_is_outcome_unknown(failure) && !raftz_error_is_retriable(failure));
    raftz_error_free(failure);
    failure = NULL;
    stop(node);
    raftz_config_free(config);
}

static void set(raftz_node *node, const char *key, const char *value) {
    raftz_bytes *command = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_kv_reply *answer = NULL;
    OUT(raftz_kv_reply_info, info);
    OK(raftz_kv_set(raftz_text(key), raftz_text(value), &command, &failure));
    OK(raftz_propose_wait(node, raftz_bytes_slice(command), NULL, &reply, &failure));
    OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
    OK(raftz_kv_reply_get(answer, &info.it, &failure));
    FILLED(raftz_kv_reply_info, info);
    CHECK(info.it.kind == RAFTZ_KV_STORED);
    raftz_kv_reply_free(answer);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
}

/* What a node has under each key, by one scan. */
static void has(raftz_node *node, const char *key, const char *value) {
    raftz_bytes *request = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_kv_reply *answer = NULL;
    raftz_slice found_key, found_value, none = {NULL, 0};
    OUT(raftz_kv_reply_info, info);
    OK(raftz_kv_scan(none, NULL, 10, &request, &failure));
    OK(raftz_read_wait(node, raftz_bytes_slice(request), NULL, &reply, &failure));
    OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
    OK(raftz_kv_reply_get(answer, &info.it, &failure));
    FILLED(raftz_kv_reply_info, info);
    CHECK(info.it.kind == RAFTZ_KV_SCANNED && info.it.count == 1 && !info.it.is_on);
    OK(raftz_kv_reply_entry(answer, 0, &found_key, &found_value, &failure));
    CHECK(same(found_key, key) && same(found_value, value));
    raftz_kv_reply_free(answer);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(request);
}

static int leads(raftz_node *node) {
    raftz_standing_info info = RAFTZ_STANDING_INFO_INIT;
    OK(raftz_watch_wait(node, 0, 0, &info, &failure));
    return info.role == RAFTZ_ROLE_LEADER && info.is_ready;
}

/* Three nodes with the built-in store; the leadership moves. */
static void cluster(void) {
    raftz_network *network = NULL;
    raftz_queue *queue = NULL;
    raftz_config *configs[3];
    raftz_node *nodes[3] = {NULL, NULL, NULL};
    raftz_state *state = NULL;
    raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
    unsigned leader = 0, done = now(&count.done);
    OUT(raftz_state_info, info);
    OUT(raftz_peer_info, peer);
    OK(raftz_network_new(&network, &failure));
    OK(raftz_queue_new(NULL, &queue, &failure));
    opts.network = network;
    opts.builtin = RAFTZ_BUILTIN_KV;
    for (unsigned at = 0; at < 3; at++) {
        configs[at] = new_config(at + 1, 3);
        OK(raftz_config_set_event_queue(configs[at], 1u << RAFTZ_EVENT_ROLE, queue, &failure));
        OK(raftz_node_start(configs[at], NULL, &opts, &nodes[at], &failure));
    }
    while (!leads(nodes[leader])) {
        moment();
        leader = (leader + 1) % 3;
    }
    drain(queue, 0, 1);
    set(nodes[(leader + 1) % 3], "k", "v");
    OK(raftz_node_state(nodes[leader], &state, &failure));
    OK(raftz_state_get(state, &info.it, &failure));
    FILLED(raftz_state_info, info);
    CHECK(info.it.peer_count == 2);
    for (size_t at = 0; at < info.it.peer_count; at++) {
        OK(raftz_state_peer(state, at, &peer.it, &failure));
        FILLED(raftz_peer_info, peer);
        CHECK(peer.it.node_id >= 1 && peer.it.node_id <= 3 && peer.it.address.len > 0);
    }
    raftz_state_free(state);
    for (unsigned at = 0; at < 3; at++) {
        has(nodes[at], "k", "v");
    }
    OK(raftz_transfer_leadership(nodes[leader], 0, 60000, on_transfer, &count.done, &failure));
    while (now(&count.done) < done + 1) {
        moment();
    }
    set(nodes[leader], "k", "w");
    for (unsigned at = 0; at < 3; at++) {
        has(nodes[at], "k", "w");
    }
    for (unsigned at = 0; at < 3; at++) {
        stop(nodes[at]);
        raftz_config_free(configs[at]);
    }
    raftz_queue_free(queue);
    raftz_network_free(network);
}

/* Names and numbers that programs have written down. */
static void names(void) {
#define NAME(status) CHECK(strcmp(raftz_status_name(status), #status) == 0)
    NAME(RAFTZ_OK);
    NAME(RAFTZ_NOT_LEADER);
    NAME(RAFTZ_BUSY);
    NAME(RAFTZ_UNKNOWN_TIMEOUT);
    NAME(RAFTZ_CONFIG);
    NAME(RAFTZ_NULL_ARG);
    NAME(RAFTZ_CLOSED);
    /* Not older than the header. */
    CHECK(raftz_version() >= RAFTZ_VERSION && raftz_abi_version() >= RAFTZ_ABI_VERSION);
    CHECK(strlen(raftz_version_text()) > 0);
    raftz_config *config = new_config(1, 1);
    const char *keys[] = {"node_id", "founders", "storage", "entry_bytes_max", "calls_max"};
    for (size_t at = 0; at < sizeof keys / sizeof *keys; at++) {
        raftz_bytes *value = NULL;
        OK(raftz_config_get(config, keys[at], &value, &failure));
        CHECK(raftz_bytes_slice(value).len > 0);
        raftz_bytes_free(value);
    }
    CHECK(raftz_config_key(config, 0) != NULL);
    CHECK(raftz_config_set(config, "no such key", "1", &failure) == RAFTZ_CONFIG);
    raftz_error_free(failure);
    failure = NULL;
    raftz_config_free(config);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    alarm(120);
    names();
    own_parts(0);
    own_parts(1);
    snapshots(argv[1]);
    fault();
    cluster();
    CHECK(count.created == count.destroyed && count.begun == count.ended && count.opened == count.closed);
    CHECK(count.dropped == 4 && count.freed == 4);
    return 0;
}
