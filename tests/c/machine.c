/* State machines of a C program's own: how they are made and ended, how they fail, and what they may do. */
#include "cluster.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>

/* One machine, and what is to go wrong with it. */
struct machine {
    struct tally created, destroyed, applied, queried;
    raftz_status create_status;
    /* What apply does from the command "fail" on. */
    enum { SUCCEED, FAIL, TOO_FEW, TOO_MANY } mode;
    /* In here apply waits until it is opened. */
    pthread_mutex_t gate;
    struct tally blocked;
    raftz_node *node;
};
#define MACHINE_INIT                                                                               \
    {TALLY_INIT, TALLY_INIT, TALLY_INIT, TALLY_INIT, RAFTZ_OK, SUCCEED,                            \
     PTHREAD_MUTEX_INITIALIZER, TALLY_INIT, NULL}

static raftz_status create(void *user_data, raftz_sink *why, void **made) {
    struct machine *machine = user_data;
    if (machine->create_status != RAFTZ_OK) {
        OK(raftz_sink_fail(why, raftz_text("out of cogs")));
        return machine->create_status;
    }
    tally_add(&machine->created, 1);
    *made = machine;
    return RAFTZ_OK;
}

static void destroy(void *made) {
    tally_add(&((struct machine *)made)->destroyed, 1);
}

static raftz_status apply(void *made, const raftz_command *commands, size_t count,
                          raftz_replies *replies) {
    struct machine *machine = made;
    for (size_t at = 0; at < count; at++) {
        CHECK(commands[at].index > 0 && commands[at].term > 0);
        CHECK(at == 0 || commands[at].index > commands[at - 1].index);
        CHECK(at == 0 || commands[at].log_time_us >= commands[at - 1].log_time_us);
        if (same(commands[at].data, "fail")) {
            if (machine->mode == FAIL) {
                OK(raftz_replies_fail(replies, raftz_text("as the test wants")));
                return RAFTZ_CALLBACK_FAILED;
            }
            if (machine->mode == TOO_FEW) {
                continue;
            }
            if (machine->mode == TOO_MANY) {
                OK(raftz_replies_push(replies, raftz_text("one more")));
            }
        }
        if (same(commands[at].data, "block")) {
            tally_add(&machine->blocked, 1);
            pthread_mutex_lock(&machine->gate);
            pthread_mutex_unlock(&machine->gate);
        }
        if (same(commands[at].data, "reject")) {
            OK(raftz_replies_reject(replies, raftz_text("no")));
        } else {
            OK(raftz_replies_push(replies, commands[at].data));
        }
    }
    tally_add(&machine->applied, count);
    return RAFTZ_OK;
}

static raftz_status query(void *made, raftz_slice request, raftz_sink *reply) {
    struct machine *machine = made;
    tally_add(&machine->queried, 1);
    if (same(request, "fail")) {
        OK(raftz_sink_fail(reply, raftz_text("no answer today")));
        return -1234;
    }
    if (same(request, "reject")) {
        OK(raftz_sink_reject(reply));
    }
    OK(raftz_sink_write(reply, raftz_text("so ")));
    OK(raftz_sink_write(reply, request));
    return RAFTZ_OK;
}

static raftz_machine table(struct machine *machine) {
    raftz_machine table = RAFTZ_MACHINE_INIT;
    table.user_data = machine;
    table.create = create;
    table.destroy = destroy;
    table.apply = apply;
    table.query = query;
    return table;
}

/* As many ends as beginnings, whatever becomes of the start. */
static void pairs(void) {
    struct machine machine = MACHINE_INIT;
    raftz_machine with = table(&machine), without = table(&machine);
    raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
    raftz_config *config = new_config(1, 1);
    raftz_node *node = NULL;
    without.create = NULL;

    OK(raftz_network_new((raftz_network **)&opts.network, &failure));
    OK(raftz_node_start(config, &with, &opts, &node, &failure));
    CHECK(tally_now(&machine.created) == 1 && tally_now(&machine.destroyed) == 0);
    stop_and_free(node);
    CHECK(tally_now(&machine.created) == 1 && tally_now(&machine.destroyed) == 1);
    OK(raftz_node_start(config, &without, &opts, &node, &failure));
    stop_and_free(node);
    CHECK(tally_now(&machine.created) == 1 && tally_now(&machine.destroyed) == 2);

    /* Not created, not ended. */
    node = NULL;
    machine.create_status = RAFTZ_CALLBACK_FAILED;
    raftz_status status = raftz_node_start(config, &with, &opts, &node, &failure);
    CHECK(strstr(raftz_error_message(failure), "out of cogs") != NULL);
    WANT(RAFTZ_MACHINE, status);
    CHECK(node == NULL && tally_now(&machine.destroyed) == 2);
    machine.create_status = RAFTZ_OK;

    /* The start fails where there is or is no machine yet: a port in use, a wrong configuration, a
     * descriptor that is none. */
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &len) == 0);
    char text[32];
    snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(address.sin_port));
    OK(raftz_config_set_listen_address(config, text, &failure));
    raftz_machine *tables[] = {&with, &without};
    for (unsigned at = 0; at < 2; at++) {
        uint64_t created = tally_now(&machine.created), destroyed = tally_now(&machine.destroyed);
        uint64_t taken = tables[at]->create == NULL;
        CHECK(raftz_node_start(config, tables[at], NULL, &node, &failure) == RAFTZ_NETWORK);
        CHECK(raftz_error_os_errno(failure) == EADDRINUSE);
        WANT(RAFTZ_NETWORK, RAFTZ_NETWORK);
        CHECK(tally_now(&machine.destroyed) - destroyed == tally_now(&machine.created) - created + taken);

        OK(raftz_config_set_number(config, "heartbeat_interval_ms", 100000, &failure));
        WANT(RAFTZ_CONFIG, raftz_node_start(config, tables[at], &opts, &node, &failure));
        OK(raftz_config_set_number(config, "heartbeat_interval_ms", election_ms() / 5, &failure));
        CHECK(tally_now(&machine.destroyed) - destroyed == tally_now(&machine.created) - created + 2 * taken);

        raftz_start_opts no_socket = RAFTZ_START_OPTS_INIT;
        no_socket.listen_fd = -1;
        WANT(RAFTZ_INVALID_ARG, raftz_node_start(config, tables[at], &no_socket, &node, &failure));
        CHECK(tally_now(&machine.destroyed) - destroyed == tally_now(&machine.created) - created + 2 * taken);
        CHECK(node == NULL);
    }
    /* A table that is not taken. */
    uint64_t before = tally_now(&machine.destroyed);
    without.snapshot_end = destroy;
    WANT(RAFTZ_INVALID_ARG, raftz_node_start(config, &without, &opts, &node, &failure));
    CHECK(tally_now(&machine.destroyed) == before);
    close(fd);
    raftz_config_free(config);
    raftz_network_free((raftz_network *)opts.network);
}

struct fault {
    struct tally told;
    char words[256];
};

static void on_event(void *user_data, const raftz_event_info *event) {
    struct fault *fault = user_data;
    if (event->kind == RAFTZ_EVENT_FAULTED) {
        CHECK(event->text.len > 0 && event->text.len < sizeof fault->words);
        memcpy(fault->words, event->text.data, event->text.len);
        tally_add(&fault->told, 1);
    }
}

/* A replica whose machine fails stops, and says so; the process lives. */
static void failing(int mode) {
    struct machine machine = MACHINE_INIT;
    struct fault fault = {TALLY_INIT, ""};
    raftz_machine mine = table(&machine);
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    machine.mode = mode;
    OK(raftz_network_new(&network, &failure));
    OK(raftz_config_set_event_callback(config, 1ull << RAFTZ_EVENT_FAULTED, on_event, &fault, NULL,
                                       &failure));
    raftz_node *node = start_in(network, config, &mine);
    raftz_reply reply = propose_surely(node, raftz_text("well"));
    CHECK(same(raftz_bytes_slice(reply.bytes), "well"));
    raftz_bytes_free(reply.bytes);
    reply = propose_surely(node, raftz_text("reject"));
    CHECK(reply.flags == RAFTZ_OUTCOME_REJECTED && same(raftz_bytes_slice(reply.bytes), "no"));
    raftz_bytes_free(reply.bytes);

    raftz_status status = raftz_propose_wait(node, raftz_text("fail"), NULL, &reply, &failure);
    CHECK(status == RAFTZ_UNKNOWN_FAULTED && raftz_error_is_outcome_unknown(failure));
    WANT(status, status);
    tally_wait(&fault.told, 1);
    if (mode == FAIL) {
        CHECK(strstr(fault.words, "as the test wants") != NULL);
        CHECK(strstr(fault.words, "RAFTZ_CALLBACK_FAILED") != NULL);
    }
    status = raftz_propose_wait(node, raftz_text("more"), NULL, &reply, &failure);
    CHECK(status == RAFTZ_FAULTED && raftz_error_is_fatal(failure));
    WANT(status, status);
    raftz_state *state = NULL;
    raftz_state_info info = RAFTZ_STATE_INFO_INIT;
    OK(raftz_node_state(node, &state, &failure));
    OK(raftz_state_get(state, &info, &failure));
    CHECK(info.fault.len > 0 && info.calls_in_flight == 0);
    raftz_state_free(state);
    stop_and_free(node);
    CHECK(tally_now(&fault.told) == 1);
    CHECK(tally_now(&machine.created) == 1 && tally_now(&machine.destroyed) == 1);
    raftz_config_free(config);
    raftz_network_free(network);
}

/* Only the asker is told of a question that fails. */
static void failing_query(void) {
    struct machine machine = MACHINE_INIT;
    raftz_machine mine = table(&machine);
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = 30000 * slowness();
    OK(raftz_network_new(&network, &failure));
    raftz_node *node = start_in(network, config, &mine);
    CHECK(raftz_read_wait(node, raftz_text("fail"), &opts, &reply, &failure) == RAFTZ_READ_FAILED);
    CHECK(strstr(raftz_error_message(failure), "no answer today") != NULL);
    CHECK(strstr(raftz_error_message(failure), "-1234") != NULL);
    WANT(RAFTZ_READ_FAILED, RAFTZ_READ_FAILED);
    CHECK(reply.bytes == NULL);
    OK(raftz_read_wait(node, raftz_text("what"), &opts, &reply, &failure));
    CHECK(reply.flags == 0 && same(raftz_bytes_slice(reply.bytes), "so what"));
    raftz_bytes_free(reply.bytes);
    OK(raftz_read_wait(node, raftz_text("reject"), &opts, &reply, &failure));
    CHECK(reply.flags == RAFTZ_OUTCOME_REJECTED);
    raftz_bytes_free(reply.bytes);
    reply = propose_surely(node, raftz_text("well"));
    raftz_bytes_free(reply.bytes);
    stop_and_free(node);

    /* A machine without an answer. */
    mine.query = NULL;
    node = start_in(network, config, &mine);
    WANT(RAFTZ_READ_FAILED, raftz_read_wait(node, raftz_text("what"), &opts, &reply, &failure));
    stop_and_free(node);
    raftz_config_free(config);
    raftz_network_free(network);
}

struct gate {
    pthread_mutex_t lock;
    struct tally entered, left;
};

static void block(void *user_data, const raftz_outcome *outcome) {
    struct gate *gate = user_data;
    CHECK(outcome->status == RAFTZ_OK);
    tally_add(&gate->entered, 1);
    pthread_mutex_lock(&gate->lock);
    pthread_mutex_unlock(&gate->lock);
    tally_add(&gate->left, 1);
}

/* A completion and an apply of the leader that block for ten election timeouts cost no election. */
static void blocking(void) {
    struct machine machines[NODES] = {MACHINE_INIT, MACHINE_INIT, MACHINE_INIT};
    struct cluster cluster = {0};
    struct gate gate = {PTHREAD_MUTEX_INITIALIZER, TALLY_INIT, TALLY_INIT};
    cluster_configure(&cluster);
    for (unsigned at = 0; at < NODES; at++) {
        raftz_machine mine = table(&machines[at]);
        cluster.nodes[at] = start_in(cluster.network, cluster.configs[at], &mine);
    }
    unsigned leader = cluster_leader(&cluster);
    uint64_t term = state_of(cluster.nodes[leader]).term;
    pthread_mutex_lock(&gate.lock);
    for (unsigned at = 0; at < NODES; at++) {
        pthread_mutex_lock(&machines[at].gate);
    }
    OK(raftz_propose(cluster.nodes[leader], raftz_text("x"), NULL, block, &gate, &failure));
    tally_wait(&gate.entered, 1);
    OK(raftz_propose(cluster.nodes[leader], raftz_text("block"), NULL, block, &gate, &failure));
    tally_wait(&machines[leader].blocked, 1);
    uint64_t end = now_ms() + 10 * election_ms();
    while (now_ms() < end) {
        moment();
    }
    for (unsigned at = 0; at < NODES; at++) {
        raftz_state_info info = state_of(cluster.nodes[at]);
        CHECK(info.term == term && info.leader_id == leader + 1);
        pthread_mutex_unlock(&machines[at].gate);
    }
    pthread_mutex_unlock(&gate.lock);
    tally_wait(&gate.left, 2);
    cluster_end(&cluster);
    for (unsigned at = 0; at < NODES; at++) {
        CHECK(tally_now(&machines[at].destroyed) == 1);
    }
}

/* A stop while a callback does not return says so; every call has ended all the same, and the rest follows. */
static void stop_in_vain(void) {
    struct machine machine = MACHINE_INIT;
    struct gate gate = {PTHREAD_MUTEX_INITIALIZER, TALLY_INIT, TALLY_INIT};
    raftz_machine mine = table(&machine);
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    OK(raftz_network_new(&network, &failure));
    raftz_node *node = start_in(network, config, &mine);
    OK(raftz_node_wait_for_leader(node, 30000 * slowness(), NULL, &failure));
    pthread_mutex_lock(&gate.lock);
    OK(raftz_propose(node, raftz_text("x"), NULL, block, &gate, &failure));
    tally_wait(&gate.entered, 1);
    CHECK(raftz_node_stop(node, 20, &failure) == RAFTZ_STILL_RUNNING);
    CHECK(raftz_error_is_retriable(failure) && strstr(raftz_error_message(failure), "raftz-1-") != NULL);
    WANT(RAFTZ_STILL_RUNNING, RAFTZ_STILL_RUNNING);
    WANT(RAFTZ_SHUT_DOWN, raftz_propose(node, raftz_text("y"), NULL, block, &gate, &failure));
    pthread_mutex_unlock(&gate.lock);
    stop_and_free(node);
    CHECK(tally_now(&gate.left) == 1 && tally_now(&machine.destroyed) == 1);
    raftz_config_free(config);
    raftz_network_free(network);
}

struct again {
    raftz_node *node;
    raftz_queue *queue;
    struct tally told;
    unsigned left;
};

static void refused_inside(const struct again *again) {
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_event *event = NULL;
    opts.level = RAFTZ_READ_STALE;
    WANT(RAFTZ_IN_CALLBACK, raftz_propose_wait(again->node, raftz_text("x"), NULL, &reply, &failure));
    WANT(RAFTZ_IN_CALLBACK, raftz_read_wait(again->node, raftz_text("x"), &opts, &reply, &failure));
    WANT(RAFTZ_IN_CALLBACK, raftz_node_wait_for_leader(again->node, 9, NULL, &failure));
    WANT(RAFTZ_IN_CALLBACK, raftz_node_wait_for_applied(again->node, 1, 9, &failure));
    WANT(RAFTZ_IN_CALLBACK, raftz_node_snapshot(again->node, 9, NULL, &failure));
    WANT(RAFTZ_IN_CALLBACK, raftz_node_stop(again->node, 9, &failure));
    WANT(RAFTZ_IN_CALLBACK, raftz_queue_next(again->queue, 9, &event, &failure));
    WANT(RAFTZ_EMPTY, raftz_queue_next(again->queue, 0, &event, &failure));
}

static void go_on(void *user_data, const raftz_outcome *outcome) {
    struct again *again = user_data;
    CHECK(outcome->status == RAFTZ_OK);
    refused_inside(again);
    CHECK(state_of(again->node).term > 0 && raftz_node_id(again->node) == 1);
    if (again->left-- > 0) {
        OK(raftz_propose(again->node, outcome->reply, NULL, go_on, again, &failure));
    }
    tally_add(&again->told, 1);
}

static raftz_status nosy(void *made, const raftz_command *commands, size_t count,
                         raftz_replies *replies) {
    struct again *again = made;
    if (again->node != NULL) {
        refused_inside(again);
        CHECK(state_of(again->node).node_id == 1);
    }
    for (size_t at = 0; at < count; at++) {
        OK(raftz_replies_push(replies, commands[at].data));
    }
    return RAFTZ_OK;
}

/* Callbacks may call back in, also on the node's own event loop; only waits are refused. */
static void reentrant(uint32_t flags) {
    struct again again = {NULL, NULL, TALLY_INIT, 100};
    raftz_machine mine = RAFTZ_MACHINE_INIT;
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    mine.flags = flags;
    mine.user_data = &again;
    mine.apply = nosy;
    OK(raftz_network_new(&network, &failure));
    OK(raftz_queue_new(NULL, &again.queue, &failure));
    raftz_node *node = start_in(network, config, &mine);
    OK(raftz_node_wait_for_leader(node, 30000 * slowness(), NULL, &failure));
    raftz_reply reply = propose_surely(node, raftz_text("x"));
    raftz_bytes_free(reply.bytes);
    again.node = node;
    OK(raftz_propose(node, raftz_text("y"), NULL, go_on, &again, &failure));
    tally_wait(&again.told, 101);
    stop_and_free(node);
    raftz_queue_free(again.queue);
    raftz_config_free(config);
    raftz_network_free(network);
}

int main(int count, char **arguments) {
    watchdog(120);
    bool is_short = count > 1 && strcmp(arguments[1], "short") == 0;
    pairs();
    failing(FAIL);
    failing(TOO_FEW);
    failing(TOO_MANY);
    failing_query();
    stop_in_vain();
    reentrant(0);
    reentrant(RAFTZ_MACHINE_NEVER_BLOCKS);
    if (!is_short) {
        blocking();
    }
    return 0;
}
