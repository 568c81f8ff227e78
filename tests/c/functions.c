/* Everything of the header, used for what it is there for: once in a network of this process and once
 * over TCP with directories. */
#include "cluster.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

static struct tally freed = TALLY_INIT;

static void count_free(void *context) {
    CHECK(context == &freed);
    tally_add(&freed, 1);
}

/* A completion, kept for a look at it. */
struct ended {
    struct tally told;
    raftz_status status;
    uint32_t flags;
    uint64_t index, term, leader_id;
    char reply[64];
    size_t reply_len;
    size_t count;
};
#define ENDED_INIT {TALLY_INIT, 0, 0, 0, 0, 0, "", 0, 0}

static void keep(struct ended *ended, const raftz_outcome *outcome) {
    ended->status = outcome->status;
    ended->flags = outcome->flags;
    ended->index = outcome->index;
    ended->term = outcome->term;
    ended->leader_id = outcome->leader_id;
    ended->reply_len = outcome->reply.len;
    CHECK(outcome->reply.len < sizeof ended->reply);
    if (outcome->reply.len > 0) {
        memcpy(ended->reply, outcome->reply.data, outcome->reply.len);
    }
    CHECK(outcome->reserved[0] == 0 && outcome->reserved[1] == 0);
    CHECK((outcome->status == RAFTZ_OK) == (outcome->message.len == 0));
}

static void on_done(void *user_data, const raftz_outcome *outcome) {
    struct ended *ended = user_data;
    keep(ended, outcome);
    tally_add(&ended->told, 1);
}

static void on_batch(void *user_data, const raftz_outcome *outcomes, size_t count) {
    struct ended *ended = user_data;
    ended->count = count;
    for (size_t at = 0; at < count; at++) {
        keep(ended, &outcomes[at]);
        CHECK(at == 0 || outcomes[at].index > outcomes[at - 1].index);
    }
    tally_add(&ended->told, 1);
}

static raftz_kv_reply_info kv_info(raftz_kv_reply *reply) {
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    OK(raftz_kv_reply_get(reply, &info, &failure));
    return info;
}

/* Proposes a command of the store, and frees it. */
static raftz_kv_reply *kv_do(raftz_node *node, raftz_bytes *command) {
    raftz_reply reply = propose_surely(node, raftz_bytes_slice(command));
    raftz_kv_reply *answer = NULL;
    raftz_bytes_free(command);
    CHECK(reply.index > 0 && reply.term > 0 && reply.reserved == 0);
    OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
    raftz_bytes_free(reply.bytes);
    return answer;
}

/* Asks the store, and frees the question. */
static raftz_kv_reply *kv_ask(raftz_node *node, raftz_bytes *request) {
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_kv_reply *answer = NULL;
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = 30000 * slowness();
    OK(raftz_read_wait(node, raftz_bytes_slice(request), &opts, &reply, &failure));
    raftz_bytes_free(request);
    CHECK(reply.index == 0 && reply.term == 0);
    OK(raftz_kv_reply_read(raftz_bytes_slice(reply.bytes), reply.flags, &answer, &failure));
    raftz_bytes_free(reply.bytes);
    return answer;
}

static void versions_and_names(void) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", RAFTZ_VERSION_MAJOR, RAFTZ_VERSION_MINOR,
             RAFTZ_VERSION_PATCH);
    CHECK(raftz_version() == RAFTZ_VERSION);
    CHECK(RAFTZ_VERSION == RAFTZ_VERSION_MAJOR * 10000 + RAFTZ_VERSION_MINOR * 100 + RAFTZ_VERSION_PATCH);
    CHECK(strcmp(raftz_version_text(), text) == 0);
    CHECK(raftz_abi_version() == RAFTZ_ABI_VERSION);
#define NAME(status) CHECK(strcmp(raftz_status_name(status), #status) == 0)
    NAME(RAFTZ_OK);
    NAME(RAFTZ_NOT_LEADER);
    NAME(RAFTZ_UNKNOWN_IN_CALLBACK);
    NAME(RAFTZ_READ_FAILED);
    NAME(RAFTZ_CLOSED);
    CHECK(raftz_status_is_outcome_unknown(RAFTZ_UNKNOWN_TIMEOUT) && raftz_status_is_outcome_unknown(-63));
    CHECK(!raftz_status_is_outcome_unknown(RAFTZ_OK) && !raftz_status_is_outcome_unknown(RAFTZ_BUSY));
    CHECK(raftz_status_is_retriable(RAFTZ_BUSY) && raftz_status_is_fatal(RAFTZ_CLOSED));
    for (raftz_status status = 1; status > -200; status--) {
        CHECK(!raftz_status_is_retriable(status) || !raftz_status_is_outcome_unknown(status));
        CHECK(!raftz_status_is_retriable(status) || !raftz_status_is_fatal(status));
    }
    CHECK(strcmp(raftz_status_name(1), "RAFTZ_?") == 0);
    CHECK(strcmp(raftz_status_name(INT32_MIN), "RAFTZ_?") == 0);
}

static void bytes_and_errors(void) {
    raftz_bytes *bytes = NULL;
    raftz_error *error = NULL;
    char own[] = "own";
    OK(raftz_bytes_copy(raftz_text("copied"), &bytes, &failure));
    CHECK(same(raftz_bytes_slice(bytes), "copied"));
    raftz_bytes_free(bytes);
    uint64_t before = tally_now(&freed);
    OK(raftz_bytes_wrap(raftz_text(own), count_free, &freed, &bytes, &failure));
    CHECK(raftz_bytes_slice(bytes).data == (const uint8_t *)own);
    CHECK(tally_now(&freed) == before);
    raftz_bytes_free(bytes);
    CHECK(tally_now(&freed) == before + 1);
    WANT(RAFTZ_NULL_ARG, raftz_bytes_wrap((raftz_slice){NULL, 1}, count_free, &freed, &bytes, &failure));
    CHECK(tally_now(&freed) == before + 1);
    OK(raftz_bytes_wrap(raftz_text("for ever"), NULL, NULL, &bytes, &failure));
    raftz_bytes_free(bytes);
    OK(raftz_bytes_wrap((raftz_slice){NULL, 0}, count_free, &freed, &bytes, &failure));
    CHECK(raftz_bytes_slice(bytes).len == 0);
    raftz_bytes_free(bytes);
    CHECK(tally_now(&freed) == before + 2);

    CHECK(raftz_bytes_copy(raftz_text("x"), NULL, &error) == RAFTZ_NULL_ARG);
    CHECK(raftz_error_status(error) == RAFTZ_NULL_ARG && strlen(raftz_error_message(error)) > 0);
    CHECK(!raftz_error_is_retriable(error) && !raftz_error_is_fatal(error));
    CHECK(!raftz_error_is_outcome_unknown(error));
    CHECK(raftz_error_leader_id(error) == 0 && raftz_error_os_errno(error) == 0);
    raftz_error_free(error);
}

static void configuration(void) {
    raftz_config *config = NULL;
    raftz_bytes *text = NULL;
    size_t keys = 0;
    OK(raftz_config_new(7, "abcdef", &config, &failure));
    for (; raftz_config_key(config, keys) != NULL; keys++) {
        OK(raftz_config_get(config, raftz_config_key(config, keys), &text, &failure));
        /* What a key shows it takes again. */
        char shown[256];
        raftz_slice slice = raftz_bytes_slice(text);
        CHECK(slice.len < sizeof shown);
        memcpy(shown, slice.data, slice.len);
        shown[slice.len] = '\0';
        raftz_bytes_free(text);
        OK(raftz_config_set(config, raftz_config_key(config, keys), shown, &failure));
    }
    CHECK(keys > 20 && raftz_config_key(config, SIZE_MAX) == NULL);
    OK(raftz_config_set(config, "apply_bytes_max", "512k", &failure));
    OK(raftz_config_get(config, "apply_bytes_max", &text, &failure));
    CHECK(same(raftz_bytes_slice(text), "524288"));
    raftz_bytes_free(text);
    OK(raftz_config_set_bool(config, "forward", 0, &failure));
    OK(raftz_config_get(config, "forward", &text, &failure));
    CHECK(same(raftz_bytes_slice(text), "false"));
    raftz_bytes_free(text);
    OK(raftz_config_set_number(config, "calls_max", 9, &failure));
    CHECK(raftz_config_set_number(config, "election_timeout_min", 9, &failure) == RAFTZ_CONFIG);
    CHECK(strstr(raftz_error_message(failure), "election_timeout_min_ms") != NULL);
    raftz_error_free(failure);
    failure = NULL;
    WANT(RAFTZ_CONFIG, raftz_config_get(config, "none", &text, &failure));
    WANT(RAFTZ_CONFIG, raftz_config_set(config, "calls_max", "many", &failure));
    OK(raftz_config_get(config, "calls_max", &text, &failure));
    CHECK(same(raftz_bytes_slice(text), "9"));
    raftz_bytes_free(text);
    OK(raftz_config_set_directory(config, "somewhere", &failure));
    OK(raftz_config_get(config, "storage", &text, &failure));
    CHECK(same(raftz_bytes_slice(text), "directory:somewhere"));
    raftz_bytes_free(text);
    OK(raftz_config_set_memory(config, &failure));
    OK(raftz_config_set_listen_address(config, "127.0.0.1:0", &failure));
    OK(raftz_config_add_founder(config, 7, "127.0.0.1:7007", &failure));
    OK(raftz_config_get(config, "founders", &text, &failure));
    CHECK(same(raftz_bytes_slice(text), "7=127.0.0.1:7007"));
    raftz_bytes_free(text);
    OK(raftz_config_validate(config, &failure));
    OK(raftz_config_set_number(config, "heartbeat_interval_ms", 100000, &failure));
    WANT(RAFTZ_CONFIG, raftz_config_validate(config, &failure));
    raftz_config_free(config);
    WANT(RAFTZ_INVALID_ARG, raftz_config_new(0, "c1", &config, &failure));
    WANT(RAFTZ_CONFIG, raftz_config_new(1, "no hex", &config, &failure));
}

/* The store's commands and questions; `other` sees what `node` was told. */
static void key_value_store(raftz_node *node, raftz_node *other) {
    raftz_bytes *bytes = NULL;
    raftz_kv_reply *reply = NULL;
    raftz_kv_reply_info info;
    raftz_slice key = raftz_text("kv/a"), value, old = raftz_text("one"), next = raftz_text("two");

    reply = kv_do(node, set_command("kv/a", "one"));
    CHECK(kv_info(reply).kind == RAFTZ_KV_STORED);
    raftz_kv_reply_free(reply);
    OK(raftz_kv_compare_and_set(key, &old, &next, &bytes, &failure));
    reply = kv_do(node, bytes);
    CHECK(kv_info(reply).kind == RAFTZ_KV_SWAPPED);
    raftz_kv_reply_free(reply);
    OK(raftz_kv_compare_and_set(key, &old, &next, &bytes, &failure));
    reply = kv_do(node, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_NOT_SWAPPED && info.is_on == 1 && same(info.value, "two"));
    raftz_kv_reply_free(reply);
    OK(raftz_kv_compare_and_set(raftz_text("kv/none"), &old, NULL, &bytes, &failure));
    reply = kv_do(node, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_NOT_SWAPPED && info.is_on == 0 && info.value.len == 0);
    raftz_kv_reply_free(reply);
    OK(raftz_kv_compare_and_set(raftz_text("kv/b"), NULL, &old, &bytes, &failure));
    raftz_kv_reply_free(kv_do(node, bytes));
    OK(raftz_kv_increment(raftz_text("kv/n"), -5, &bytes, &failure));
    reply = kv_do(node, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_NUMBER && info.number == -5);
    raftz_kv_reply_free(reply);
    /* No number: turned down, and in the log all the same. */
    OK(raftz_kv_increment(key, 1, &bytes, &failure));
    reply = kv_do(node, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_REJECTED && info.value.len > 0);
    WANT(RAFTZ_INVALID_ARG, raftz_kv_reply_entry(reply, 0, &key, &value, &failure));
    raftz_kv_reply_free(reply);

    raftz_reply last = propose_surely(node, raftz_text("no command of the store"));
    CHECK(last.flags == RAFTZ_OUTCOME_REJECTED);
    OK(raftz_kv_reply_read(raftz_bytes_slice(last.bytes), last.flags, &reply, &failure));
    CHECK(kv_info(reply).kind == RAFTZ_KV_REJECTED);
    raftz_kv_reply_free(reply);
    raftz_bytes_free(last.bytes);
    OK(raftz_node_wait_for_applied(other, last.index, 30000 * slowness(), &failure));

    OK(raftz_kv_get(raftz_text("kv/a"), &bytes, &failure));
    reply = kv_ask(other, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_VALUE && info.is_on == 1 && same(info.value, "two"));
    raftz_kv_reply_free(reply);
    OK(raftz_kv_get(raftz_text("kv/none"), &bytes, &failure));
    reply = kv_ask(other, bytes);
    CHECK(kv_info(reply).kind == RAFTZ_KV_VALUE && kv_info(reply).is_on == 0);
    raftz_kv_reply_free(reply);

    OK(raftz_kv_scan(raftz_text("kv/"), NULL, 2, &bytes, &failure));
    reply = kv_ask(other, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_SCANNED && info.count == 2 && info.is_on == 1);
    OK(raftz_kv_reply_entry(reply, 1, &key, &value, &failure));
    CHECK(same(key, "kv/b") && same(value, "one"));
    WANT(RAFTZ_INVALID_ARG, raftz_kv_reply_entry(reply, 2, &key, &value, &failure));
    OK(raftz_kv_scan(raftz_text("kv/"), &key, 9, &bytes, &failure));
    raftz_kv_reply_free(reply);
    reply = kv_ask(other, bytes);
    info = kv_info(reply);
    CHECK(info.count == 1 && info.is_on == 0);
    OK(raftz_kv_reply_entry(reply, 0, &key, &value, &failure));
    CHECK(same(key, "kv/n") && same(value, "-5"));
    raftz_kv_reply_free(reply);

    OK(raftz_kv_digest(&bytes, &failure));
    reply = kv_ask(other, bytes);
    info = kv_info(reply);
    CHECK(info.kind == RAFTZ_KV_DIGEST && info.count >= 3);
    int64_t digest = info.number;
    raftz_kv_reply_free(reply);
    OK(raftz_kv_digest(&bytes, &failure));
    OK(raftz_node_wait_for_applied(node, last.index, 30000 * slowness(), &failure));
    reply = kv_ask(node, bytes);
    CHECK(kv_info(reply).number == digest);
    raftz_kv_reply_free(reply);

    uint64_t covered = 0;
    OK(raftz_node_snapshot(node, 30000 * slowness(), &covered, &failure));
    CHECK(covered >= last.index);
    OK(raftz_node_snapshot(node, 30000 * slowness(), NULL, &failure));

    OK(raftz_kv_delete(raftz_text("kv/b"), &bytes, &failure));
    reply = kv_do(node, bytes);
    CHECK(kv_info(reply).kind == RAFTZ_KV_DELETED && kv_info(reply).is_on == 1);
    raftz_kv_reply_free(reply);
    WANT(RAFTZ_INVALID_ARG, raftz_kv_reply_read(raftz_text("\xff\xff"), 0, &reply, &failure));
}

static void proposals(struct cluster *cluster, unsigned leader) {
    raftz_node *node = cluster->nodes[leader];
    raftz_node *follower = cluster->nodes[(leader + 1) % NODES];
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    raftz_bytes *command = set_command("p", "1"), *wrapped = NULL;
    struct ended one = ENDED_INIT, bytes = ENDED_INIT, batch = ENDED_INIT, none = ENDED_INIT;

    OK(raftz_propose(node, raftz_bytes_slice(command), NULL, on_done, &one, &failure));
    tally_wait(&one.told, 1);
    CHECK(one.status == RAFTZ_OK && one.index > 0 && one.term > 0 && one.flags == 0);

    /* Without a copy, through a follower; freed once though it went through a log. */
    uint64_t before = tally_now(&freed);
    raftz_slice slice = raftz_bytes_slice(command);
    OK(raftz_bytes_wrap(slice, count_free, &freed, &wrapped, &failure));
    OK(raftz_propose_bytes(follower, wrapped, NULL, on_done, &bytes, &failure));
    tally_wait(&bytes.told, 1);
    CHECK(bytes.status == RAFTZ_OK && bytes.index > one.index);
    /* And when the call fails. */
    opts.forward = 77;
    OK(raftz_bytes_wrap(slice, count_free, &freed, &wrapped, &failure));
    WANT(RAFTZ_INVALID_ARG, raftz_propose_bytes(node, wrapped, &opts, on_done, &bytes, &failure));
    OK(raftz_bytes_wrap(slice, count_free, &freed, &wrapped, &failure));
    WANT(RAFTZ_NULL_ARG, raftz_propose_bytes(NULL, wrapped, NULL, on_done, &bytes, &failure));
    OK(raftz_bytes_wrap(slice, count_free, &freed, &wrapped, &failure));
    WANT(RAFTZ_NULL_ARG, raftz_propose_bytes(node, wrapped, NULL, NULL, &bytes, &failure));
    CHECK(tally_now(&freed) >= before + 3);

    raftz_slice commands[3] = {slice, slice, slice};
    OK(raftz_propose_batch(node, commands, 3, NULL, on_batch, &batch, &failure));
    tally_wait(&batch.told, 1);
    CHECK(batch.count == 3 && batch.status == RAFTZ_OK && batch.index > bytes.index);
    OK(raftz_propose_batch(node, NULL, 0, NULL, on_batch, &none, &failure));
    tally_wait(&none.told, 1);
    CHECK(none.count == 0);

    opts = (raftz_propose_opts)RAFTZ_PROPOSE_OPTS_INIT;
    opts.expected_term = one.term + 100;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    WANT(RAFTZ_TERM_MISMATCH, raftz_propose_wait(node, slice, &opts, &reply, &failure));
    CHECK(reply.bytes == NULL && reply.index == 0);
    opts = (raftz_propose_opts)RAFTZ_PROPOSE_OPTS_INIT;
    opts.forward = RAFTZ_FORWARD_NO;
    raftz_state_info state = state_of(follower);
    raftz_status status = raftz_propose_wait(follower, slice, &opts, &reply, &failure);
    CHECK(status == RAFTZ_NOT_LEADER || state.role == RAFTZ_ROLE_LEADER);
    CHECK(raftz_error_leader_id(failure) == raftz_node_id(node) && raftz_error_is_retriable(failure));
    raftz_error_free(failure);
    failure = NULL;
    opts.forward = RAFTZ_FORWARD_YES;
    opts.expected_term = 0;
    opts.timeout_ms = 30000 * slowness();
    OK(raftz_propose_wait(follower, slice, &opts, &reply, &failure));
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
}

static void reads(raftz_node *node) {
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_bytes *request = NULL;
    struct ended ended = ENDED_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    OK(raftz_kv_digest(&request, &failure));
    raftz_slice slice = raftz_bytes_slice(request);
    /* At every level: of what was done, of an age that there is, of an entry that there is. */
    raftz_state *state = NULL;
    raftz_state_info about = RAFTZ_STATE_INFO_INIT;
    OK(raftz_node_state(node, &state, &failure));
    OK(raftz_state_get(state, &about, &failure));
    raftz_state_free(state);
    opts.timeout_ms = 30000 * slowness();
    opts.index = about.applied_index;
    opts.max_age_ms = 3600 * 1000;
    for (uint32_t level = RAFTZ_READ_LINEARIZABLE; level <= RAFTZ_READ_STALE; level++) {
        opts.level = level;
        OK(raftz_read_wait(node, slice, &opts, &reply, &failure));
        CHECK(raftz_bytes_slice(reply.bytes).len > 0);
        raftz_bytes_free(reply.bytes);
        reply.bytes = NULL;
    }
    OK(raftz_read_wait(node, slice, NULL, &reply, &failure));
    raftz_bytes_free(reply.bytes);
    reply.bytes = NULL;
    /* An entry that there is not. */
    opts.level = RAFTZ_READ_AT_LEAST;
    opts.index = UINT64_MAX;
    opts.timeout_ms = 50;
    WANT(RAFTZ_APPLY_TIMEOUT, raftz_read_wait(node, slice, &opts, &reply, &failure));
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = 30000 * slowness();
    OK(raftz_read(node, slice, &opts, on_done, &ended, &failure));
    tally_wait(&ended.told, 1);
    CHECK(ended.status == RAFTZ_OK && ended.index == 0 && ended.term == 0 && ended.reply_len > 0);
    /* A question that the store turns down. */
    struct ended rejected = ENDED_INIT;
    OK(raftz_read(node, raftz_text("?"), &opts, on_done, &rejected, &failure));
    tally_wait(&rejected.told, 1);
    CHECK(rejected.status == RAFTZ_OK && rejected.flags == RAFTZ_OUTCOME_REJECTED);

    raftz_queue_opts small = RAFTZ_QUEUE_OPTS_INIT;
    raftz_queue *queue = NULL;
    raftz_event *event = NULL;
    raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
    small.calls_max = 1;
    OK(raftz_queue_new(&small, &queue, &failure));
    OK(raftz_read_queued(node, slice, &opts, queue, &ended, &failure));
    WANT(RAFTZ_BUSY, raftz_read_queued(node, slice, &opts, queue, &ended, &failure));
    OK(raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure));
    OK(raftz_event_get(event, &info, &failure));
    CHECK(info.kind == RAFTZ_EVENT_COMPLETION && info.user_data == &ended && info.outcome_count == 1);
    CHECK(info.outcomes[0].status == RAFTZ_OK && info.outcomes[0].reply.len == ended.reply_len);
    CHECK(info.outcomes[0].index == 0 && info.outcomes[0].term == 0);
    raftz_event_free(event);
    raftz_queue_free(queue);
    raftz_bytes_free(request);
}

/* Leadership that moves, in each form; and what says no. */
static void transfers(struct cluster *cluster) {
    raftz_queue *queue = NULL;
    raftz_event *event = NULL;
    raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
    struct ended ended = ENDED_INIT, failing = ENDED_INIT;
    uint32_t patience = 30000 * slowness();
    unsigned leader = cluster_leader(cluster), follower = (leader + 1) % NODES;
    uint64_t leader_id = 0, ours = raftz_node_id(cluster->nodes[leader]);
    WANT(RAFTZ_TRANSFER_TARGET,
         raftz_transfer_leadership_wait(cluster->nodes[leader], ours, patience, &leader_id, &failure));
    WANT(RAFTZ_TRANSFER_TARGET,
         raftz_transfer_leadership_wait(cluster->nodes[leader], 99, patience, &leader_id, &failure));
    CHECK(leader_id == 0);
    OK(raftz_node_wait_for_leader(cluster->nodes[follower], patience, &leader_id, &failure));
    raftz_status status = raftz_step_down_wait(cluster->nodes[follower], patience, NULL, &failure);
    CHECK(status == RAFTZ_NOT_LEADER && raftz_error_leader_id(failure) == ours);
    raftz_error_free(failure);
    failure = NULL;
    OK(raftz_transfer_leadership(cluster->nodes[follower], 0, patience, on_done, &failing, &failure));
    tally_wait(&failing.told, 1);
    CHECK(failing.status == RAFTZ_NOT_LEADER && failing.flags == 0);

    OK(raftz_transfer_leadership_wait(cluster->nodes[leader], 0, patience, &leader_id, &failure));
    CHECK(leader_id != ours && leader_id >= 1 && leader_id <= NODES);
    leader = cluster_leader(cluster);
    CHECK(raftz_node_id(cluster->nodes[leader]) == leader_id);
    CHECK(state_of(cluster->nodes[leader]).transfer_to == 0);

    OK(raftz_transfer_leadership(cluster->nodes[leader], ours, patience, on_done, &ended, &failure));
    tally_wait(&ended.told, 1);
    CHECK(ended.status == RAFTZ_OK && ended.flags == 0 && ended.index == 0 && ended.reply_len == 0);
    leader = cluster_leader(cluster);
    CHECK(raftz_node_id(cluster->nodes[leader]) == ours);

    OK(raftz_queue_new(NULL, &queue, &failure));
    OK(raftz_step_down_queued(cluster->nodes[leader], patience, queue, &ended, &failure));
    OK(raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure));
    OK(raftz_event_get(event, &info, &failure));
    CHECK(info.kind == RAFTZ_EVENT_COMPLETION && info.user_data == &ended && info.outcome_count == 1);
    CHECK(info.outcomes[0].status == RAFTZ_OK && info.outcomes[0].leader_id != ours);
    CHECK(info.outcomes[0].leader_id >= 1 && info.outcomes[0].leader_id <= NODES);
    raftz_event_free(event);
    raftz_queue_close(queue, &failure);
    WANT(RAFTZ_CLOSED,
         raftz_transfer_leadership_queued(cluster->nodes[leader], 0, patience, queue, &ended, &failure));
    raftz_queue_free(queue);
}

/* Takes completions until `calls` of them have come. */
static void take_completions(raftz_queue *queue, size_t calls, void *tag) {
    while (calls > 0) {
        raftz_event *event = NULL;
        raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
        OK(raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure));
        OK(raftz_event_get(event, &info, &failure));
        if (info.kind == RAFTZ_EVENT_COMPLETION) {
            CHECK(info.user_data == tag && info.outcome_count > 0 && info.outcome_count <= calls);
            for (size_t at = 0; at < info.outcome_count; at++) {
                CHECK(info.outcomes[at].status == RAFTZ_OK && info.outcomes[at].index > 0);
            }
            calls -= info.outcome_count;
        }
        raftz_event_free(event);
    }
}

static void queues(raftz_node *node) {
    raftz_queue_opts opts = RAFTZ_QUEUE_OPTS_INIT;
    raftz_queue *queue = NULL;
    raftz_event *event = NULL;
    raftz_bytes *command = set_command("q", "1");
    raftz_slice slice = raftz_bytes_slice(command), commands[5] = {slice, slice, slice, slice, slice};
    int tag = 0;
    opts.calls_max = 4;
    OK(raftz_queue_new(&opts, &queue, &failure));
    struct pollfd ready = {raftz_queue_fd(queue), POLLIN, 0};
    CHECK(ready.fd >= 0 && poll(&ready, 1, 0) == 0);
    WANT(RAFTZ_EMPTY, raftz_queue_next(queue, 0, &event, &failure));
    WANT(RAFTZ_EMPTY, raftz_queue_next(queue, 5, &event, &failure));
    CHECK(event == NULL);
    WANT(RAFTZ_INVALID_ARG, raftz_propose_queued(node, commands, 5, NULL, queue, &tag, &failure));
    OK(raftz_propose_queued(node, commands, 1, NULL, queue, &tag, &failure));
    CHECK(poll(&ready, 1, -1) == 1);
    take_completions(queue, 1, &tag);
    CHECK(poll(&ready, 1, 0) == 0);
    /* The bound counts calls that wait to be taken, too. */
    OK(raftz_propose_queued(node, commands, 4, NULL, queue, &tag, &failure));
    CHECK(poll(&ready, 1, -1) == 1);
    WANT(RAFTZ_BUSY, raftz_propose_queued(node, commands, 1, NULL, queue, &tag, &failure));
    take_completions(queue, 4, &tag);
    OK(raftz_propose_queued(node, commands, 1, NULL, queue, &tag, &failure));
    /* Freed with a call under way. */
    raftz_queue_free(queue);
    raftz_bytes_free(command);
}

static void *take_until_closed(void *queue) {
    raftz_event *event = NULL;
    raftz_status status;
    size_t taken = 0;
    while ((status = raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure)) == RAFTZ_OK) {
        raftz_event_free(event);
        taken++;
    }
    WANT(RAFTZ_CLOSED, status);
    return (void *)taken;
}

struct freed_bytes {
    raftz_queue *queue;
    raftz_status waited;
};

static void wait_in_free(void *context) {
    struct freed_bytes *bytes = context;
    raftz_event *event = NULL;
    bytes->waited = raftz_queue_next(bytes->queue, RAFTZ_WAIT_FOREVER, &event, NULL);
}

/* A free function runs wherever the bytes are let go of last: nothing waits in it. */
static void wait_within_free(void) {
    struct freed_bytes context = {NULL, RAFTZ_OK};
    raftz_bytes *bytes = NULL;
    OK(raftz_queue_new(NULL, &context.queue, &failure));
    OK(raftz_bytes_wrap(raftz_text("x"), wait_in_free, &context, &bytes, &failure));
    raftz_bytes_free(bytes);
    CHECK(context.waited == RAFTZ_IN_CALLBACK);
    raftz_queue_free(context.queue);
}

/* Consumers that wait end when the queue is closed, and take all that was under way before. */
static void closed_queue(raftz_node *node) {
    enum { CONSUMERS = 3, CALLS = 500 };
    raftz_queue *queue = NULL;
    raftz_event *event = NULL;
    raftz_bytes *command = set_command("c", "1");
    raftz_slice slice = raftz_bytes_slice(command);
    pthread_t consumers[CONSUMERS];
    size_t taken = 0;
    OK(raftz_queue_new(NULL, &queue, &failure));
    for (size_t at = 0; at < CONSUMERS; at++) {
        CHECK(pthread_create(&consumers[at], NULL, take_until_closed, queue) == 0);
    }
    for (size_t call = 0; call < CALLS; call++) {
        OK(raftz_propose_queued(node, &slice, call % 2, NULL, queue, &event, &failure));
    }
    OK(raftz_queue_close(queue, &failure));
    OK(raftz_queue_close(queue, &failure));
    WANT(RAFTZ_CLOSED, raftz_propose_queued(node, &slice, 1, NULL, queue, NULL, &failure));
    for (size_t at = 0; at < CONSUMERS; at++) {
        void *count = NULL;
        CHECK(pthread_join(consumers[at], &count) == 0);
        taken += (size_t)count;
    }
    CHECK(taken == CALLS);
    struct pollfd ready = {raftz_queue_fd(queue), POLLIN, 0};
    CHECK(poll(&ready, 1, 0) == 1);
    WANT(RAFTZ_CLOSED, raftz_queue_next(queue, 0, &event, &failure));
    raftz_queue_free(queue);

    /* A batch of nothing takes a place as well, until it is taken. */
    raftz_queue_opts small = RAFTZ_QUEUE_OPTS_INIT;
    small.calls_max = 1;
    OK(raftz_queue_new(&small, &queue, &failure));
    OK(raftz_propose_queued(node, NULL, 0, NULL, queue, NULL, &failure));
    WANT(RAFTZ_BUSY, raftz_propose_queued(node, NULL, 0, NULL, queue, NULL, &failure));
    OK(raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure));
    raftz_event_free(event);
    OK(raftz_propose_queued(node, NULL, 0, NULL, queue, NULL, &failure));
    raftz_queue_free(queue);
    raftz_bytes_free(command);
}

/* Data whose destroy function uses what it may: the configuration that is let go of it. */
struct setter {
    raftz_config *config;
    struct setter *next;
    struct tally destroyed;
};

static void no_event(void *user_data, const raftz_event_info *event) {
    (void)user_data;
    (void)event;
}

static void no_line(void *user_data, uint32_t level, raftz_slice line) {
    (void)user_data;
    (void)level;
    (void)line;
}

static void set_next(void *user_data) {
    struct setter *setter = user_data;
    tally_add(&setter->destroyed, 1);
    if (setter->next != NULL) {
        OK(raftz_config_set_event_callback(setter->config, RAFTZ_EVENTS_ALL, no_event, setter->next,
                                           set_next, &failure));
    }
}

static void set_next_log(void *user_data) {
    struct setter *setter = user_data;
    tally_add(&setter->destroyed, 1);
    if (setter->next != NULL) {
        OK(raftz_config_set_log(setter->config, RAFTZ_LOG_INFO, no_line, setter->next, set_next_log,
                                &failure));
    }
}

static void set_within_destroy(void) {
    for (int log = 0; log < 2; log++) {
        raftz_config *config = new_config(1, 1);
        struct setter third = {config, NULL, TALLY_INIT};
        struct setter first = {config, &third, TALLY_INIT}, second = {config, NULL, TALLY_INIT};
        for (int at = 0; at < 2; at++) {
            struct setter *setter = at == 0 ? &first : &second;
            if (log) {
                OK(raftz_config_set_log(config, RAFTZ_LOG_INFO, no_line, setter, set_next_log, &failure));
            } else {
                OK(raftz_config_set_event_callback(config, RAFTZ_EVENTS_ALL, no_event, setter, set_next,
                                                   &failure));
            }
        }
        CHECK(tally_now(&first.destroyed) == 1);
        raftz_config_free(config);
        CHECK(tally_now(&first.destroyed) == 1 && tally_now(&second.destroyed) == 1);
        CHECK(tally_now(&third.destroyed) == 1);
    }
}

/* A node whose event callback's data is destroyed on its own callback thread. */
struct waiter {
    raftz_node *node;
    raftz_status stopped;
    struct tally destroyed;
};

static void stop_within(void *user_data) {
    struct waiter *waiter = user_data;
    waiter->stopped = raftz_node_stop(waiter->node, RAFTZ_WAIT_FOREVER, NULL);
    tally_add(&waiter->destroyed, 1);
}

static void wait_within_destroy(void) {
    struct waiter waiter = {NULL, RAFTZ_OK, TALLY_INIT};
    raftz_config *config = new_config(1, 1);
    OK(raftz_config_set_event_callback(config, RAFTZ_EVENTS_ALL, no_event, &waiter, stop_within, &failure));
    OK(raftz_node_start(config, NULL, NULL, &waiter.node, &failure));
    raftz_config_free(config);
    OK(raftz_node_stop(waiter.node, 30000 * slowness(), &failure));
    tally_wait(&waiter.destroyed, 1);
    CHECK(waiter.stopped == RAFTZ_IN_CALLBACK);
    raftz_node_free(waiter.node);
}

struct seen {
    struct tally events;
    struct tally leaders;
    struct tally destroyed;
};

static void on_event(void *user_data, const raftz_event_info *event) {
    struct seen *seen = user_data;
    CHECK(event->size >= sizeof *event && event->group == 1 && event->node_id == 1);
    CHECK(event->kind != RAFTZ_EVENT_COMPLETION && event->outcome_count == 0);
    if (event->kind == RAFTZ_EVENT_LEADER) {
        tally_add(&seen->leaders, 1);
    }
    tally_add(&seen->events, 1);
}

static void on_destroy(void *user_data) {
    tally_add(&((struct seen *)user_data)->destroyed, 1);
}

static void state_and_peers(struct cluster *cluster, unsigned leader) {
    raftz_state *state = NULL;
    raftz_state_info info = RAFTZ_STATE_INFO_INIT;
    OK(raftz_node_state(cluster->nodes[leader], &state, &failure));
    OK(raftz_state_get(state, &info, &failure));
    CHECK(info.size == sizeof info && info.node_id == leader + 1 && info.term > 0);
    CHECK(info.leader_id == leader + 1 && info.role == RAFTZ_ROLE_LEADER && info.is_ready == 1);
    CHECK(info.applied_index <= info.commit_index && info.commit_index <= info.last_index);
    CHECK(info.entry_bytes_max == 4 << 20 && info.peer_count == NODES - 1);
    CHECK(info.is_shut_down == 0 && info.fault.len == 0);
    for (size_t at = 0; at < info.peer_count; at++) {
        raftz_peer_info peer = RAFTZ_PEER_INFO_INIT;
        OK(raftz_state_peer(state, at, &peer, &failure));
        CHECK(peer.node_id != leader + 1 && peer.node_id <= NODES && peer.address.len > 0);
        CHECK(strcmp(peer.mode, "probe") == 0 || strcmp(peer.mode, "replicate") == 0);
        CHECK(peer.matched_index < peer.next_index);
        CHECK(peer.snapshot_phase == 0 && peer.snapshot_bytes == 0 && peer.snapshot_total_bytes == 0);
        CHECK(peer.is_connected ? peer.unreachable.len == 0 : peer.unreachable.len > 0);
    }
    raftz_peer_info peer = RAFTZ_PEER_INFO_INIT;
    WANT(RAFTZ_INVALID_ARG, raftz_state_peer(state, info.peer_count, &peer, &failure));
    raftz_state_free(state);
}

static void in_one_process(void) {
    static struct seen seen = {TALLY_INIT, TALLY_INIT, TALLY_INIT};
    struct cluster cluster = {0};
    raftz_queue_opts small = RAFTZ_QUEUE_OPTS_INIT;
    raftz_queue *queue = NULL;
    versions_and_names();
    bytes_and_errors();
    configuration();
    set_within_destroy();
    wait_within_destroy();
    wait_within_free();

    cluster_configure(&cluster);
    uint64_t kinds = RAFTZ_EVENTS_ALL;
    WANT(RAFTZ_UNSUPPORTED, raftz_config_set_event_callback(cluster.configs[0], 1 << (RAFTZ_EVENT_DROPPED + 1),
                                                            on_event, &seen, on_destroy, &failure));
    OK(raftz_config_set_event_callback(cluster.configs[0], kinds, on_event, &seen, on_destroy, &failure));
    small.events_max = 1;
    OK(raftz_queue_new(&small, &queue, &failure));
    OK(raftz_config_set_event_queue(cluster.configs[1], kinds, queue, &failure));
    cluster_start(&cluster, NULL);
    unsigned leader = cluster_leader(&cluster);
    uint64_t leader_id = 0;
    OK(raftz_node_wait_for_leader(cluster.nodes[0], 30000 * slowness(), &leader_id, &failure));
    CHECK(leader_id >= 1 && leader_id <= NODES);
    raftz_bytes *address = NULL;
    OK(raftz_node_listen_address(cluster.nodes[0], &address, &failure));
    raftz_bytes_free(address);

    proposals(&cluster, leader);
    state_and_peers(&cluster, leader);
    reads(cluster.nodes[leader]);
    queues(cluster.nodes[leader]);
    closed_queue(cluster.nodes[leader]);
    key_value_store(cluster.nodes[leader], cluster.nodes[(leader + 1) % NODES]);

    transfers(&cluster);

    tally_wait(&seen.leaders, 1);
    /* One event fits, and there were more: of those that replace each other the latest waits, and none is lost. */
    for (unsigned times = 0; times < 20; times++) {
        OK(raftz_node_campaign(cluster.nodes[1], &failure));
        moment();
    }
    OK(raftz_node_stop(cluster.nodes[1], 60000, &failure));
    unsigned told[32] = {0};
    for (raftz_event *event = NULL; raftz_queue_next(queue, 0, &event, NULL) == RAFTZ_OK;) {
        raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
        OK(raftz_event_get(event, &info, &failure));
        CHECK(info.node_id == 2 && info.kind != RAFTZ_EVENT_COMPLETION && info.outcome_count == 0);
        CHECK(info.kind < 32);
        told[info.kind]++;
        raftz_event_free(event);
    }
    CHECK(told[RAFTZ_EVENT_ROLE] == 1 && told[RAFTZ_EVENT_LEADER] == 1);
    CHECK(told[RAFTZ_EVENT_PEER_UP] + told[RAFTZ_EVENT_PEER_DOWN] == 2);
    CHECK(told[RAFTZ_EVENT_DROPPED] == (raftz_queue_dropped(queue) > 0));
    raftz_queue_free(queue);

    CHECK(tally_now(&seen.destroyed) == 0);
    cluster_end(&cluster);
    CHECK(tally_now(&seen.destroyed) == 1);
    /* Everything wrapped is free by now. */
    CHECK(tally_now(&freed) == 6);
}

static int listening(uint16_t *port) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0), again = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* So that the node can have the port again when it comes back. */
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &again, sizeof again) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(fd, 16) == 0 && getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void over_tcp(const char *folder) {
    struct cluster cluster = {0};
    uint16_t ports[NODES];
    int fds[NODES];
    bool is_formatted = true;
    OK(raftz_network_new(&cluster.network, &failure));
    for (unsigned at = 0; at < NODES; at++) {
        fds[at] = listening(&ports[at]);
    }
    for (unsigned at = 0; at < NODES; at++) {
        char text[4096];
        raftz_config *config = new_config(at + 1, 0);
        for (unsigned member = 0; member < NODES; member++) {
            snprintf(text, sizeof text, "127.0.0.1:%u", ports[member]);
            OK(raftz_config_add_founder(config, member + 1, text, &failure));
            if (member == at) {
                OK(raftz_config_set_listen_address(config, text, &failure));
            }
        }
        snprintf(text, sizeof text, "%s/node-%u", folder, at);
        OK(raftz_config_set_directory(config, text, &failure));
        raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
        raftz_node *none = NULL;
        opts.network = cluster.network;
        OK(raftz_node_is_formatted(config, &is_formatted, &failure));
        CHECK(!is_formatted);
        WANT(RAFTZ_STORAGE, raftz_node_start(config, NULL, &opts, &none, &failure));
        CHECK(none == NULL);
        OK(raftz_node_bootstrap(config, &failure));
        WANT(RAFTZ_STORAGE, raftz_node_bootstrap(config, &failure));
        OK(raftz_node_is_formatted(config, &is_formatted, &failure));
        CHECK(is_formatted);
        cluster.configs[at] = config;
    }
    for (unsigned at = 0; at < NODES; at++) {
        raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
        opts.listen_fd = fds[at];
        OK(raftz_node_start(cluster.configs[at], NULL, &opts, &cluster.nodes[at], &failure));
        raftz_bytes *address = NULL;
        char wanted[32];
        snprintf(wanted, sizeof wanted, "127.0.0.1:%u", ports[at]);
        OK(raftz_node_listen_address(cluster.nodes[at], &address, &failure));
        CHECK(same(raftz_bytes_slice(address), wanted));
        raftz_bytes_free(address);
    }
    unsigned leader = cluster_leader(&cluster);
    key_value_store(cluster.nodes[leader], cluster.nodes[(leader + 1) % NODES]);
    /* All stop, all come back on their own addresses, and nothing is lost. */
    for (unsigned at = 0; at < NODES; at++) {
        stop_and_free(cluster.nodes[at]);
    }
    for (unsigned at = 0; at < NODES; at++) {
        OK(raftz_node_start(cluster.configs[at], NULL, NULL, &cluster.nodes[at], &failure));
    }
    leader = cluster_leader(&cluster);
    raftz_bytes *request = NULL;
    OK(raftz_kv_get(raftz_text("kv/a"), &request, &failure));
    /* Applied once something of the new term is. */
    raftz_kv_reply_free(kv_do(cluster.nodes[leader], set_command("after", "x")));
    raftz_kv_reply *reply = kv_ask(cluster.nodes[leader], request);
    CHECK(same(kv_info(reply).value, "two"));
    raftz_kv_reply_free(reply);
    CHECK(state_of(cluster.nodes[leader]).boot == 2);
    cluster_end(&cluster);
}

int main(int count, char **arguments) {
    watchdog(120);
    CHECK(count >= 2);
    if (strcmp(arguments[1], "memory") == 0) {
        in_one_process();
    } else {
        CHECK(count == 3);
        over_tcp(arguments[2]);
    }
    return 0;
}
