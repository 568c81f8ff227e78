/* What the generated program of bad arguments is made of: good values, and the judge of what came back. */
#ifndef ARGUMENTS_H
#define ARGUMENTS_H

#include "cluster.h"
#include "store.h"

#include <signal.h>

/* Objects that are made once and good for every call that does not end them. */
static struct {
    raftz_network *network;
    raftz_config *config;
    raftz_node *node;
    raftz_node *stopped;
    raftz_queue *queue;
    raftz_event *event;
    raftz_state *state;
    raftz_bytes *bytes;
    raftz_bytes *command;
    raftz_kv_reply *kv_reply;
    raftz_sim_report *sim_report;
    raftz_error *error;
    raftz_slice slice;
    raftz_slice commands[2];
    raftz_slice bad_commands[2];
    raftz_bytes *answer;
    /* Only inside the callback that has them. */
    raftz_replies *replies;
    raftz_sink *sink;
    raftz_entries *entries;
    raftz_sim_chooser *chooser;
    /* Of a store that a node has open. */
    raftz_node *keeper;
    raftz_completions *completions;
    raftz_core *core;
    /* Of a transport that a node has open, and of some that were ended. */
    raftz_node *linked;
    raftz_links *links;
    raftz_links *ended_links[4];
    size_t spare_links;
    raftz_event *events[8];
    size_t spare_events;
    raftz_sim_report *sim_reports[4];
    size_t spare_sim_reports;
    uint64_t next_id;
    char long_text[100001];
} good;

static struct tally accepted = TALLY_INIT, ended = TALLY_INIT, wrapped = TALLY_INIT, freed = TALLY_INIT;
static struct tally taken = TALLY_INIT, destroyed = TALLY_INIT;
static const char *volatile current = "";

/* What a case that judges found wrong; the others go on. */
static unsigned problems;

static inline bool is_ours(const void *user_data) {
    return user_data == &good || user_data == NULL;
}

static void on_done(void *user_data, const raftz_outcome *outcome) {
    CHECK(is_ours(user_data) && outcome != NULL);
    tally_add(&ended, 1);
}

static void on_batch(void *user_data, const raftz_outcome *outcomes, size_t count) {
    CHECK(is_ours(user_data) && outcomes != NULL);
    (void)count;
    tally_add(&ended, 1);
}

static inline void on_event(void *user_data, const raftz_event_info *event) {
    CHECK(is_ours(user_data) && event != NULL);
}

static inline void on_log(void *user_data, uint32_t level, raftz_slice line) {
    CHECK(is_ours(user_data) && level >= RAFTZ_LOG_ERROR && level <= RAFTZ_LOG_TRACE && line.len > 0);
}

static inline void on_destroy(void *user_data) {
    CHECK(is_ours(user_data));
    tally_add(&destroyed, 1);
}

static inline void on_free(void *context) {
    CHECK(is_ours(context));
    tally_add(&freed, 1);
}

static inline raftz_status on_create(void *user_data, raftz_sink *why, void **machine) {
    (void)why;
    CHECK(is_ours(user_data));
    *machine = user_data;
    return RAFTZ_OK;
}

static inline raftz_status on_apply(void *machine, const raftz_command *commands, size_t count,
                                    raftz_replies *replies) {
    (void)machine;
    for (size_t at = 0; at < count; at++) {
        OK(raftz_replies_push(replies, commands[at].data));
    }
    return RAFTZ_OK;
}

static inline raftz_status on_applied_index(void *machine, raftz_sink *why, uint64_t *index) {
    (void)machine, (void)why;
    /* No log of these tests is so long. */
    *index = 1000000;
    return RAFTZ_OK;
}

/* Objects for the calls that end them, and for those that change them. */

static inline raftz_config *fresh_raftz_config(void) {
    raftz_config *config = NULL;
    uint64_t id = ++good.next_id;
    OK(raftz_config_new(id, "c1", &config, &failure));
    OK(raftz_config_add_founder(config, id, "127.0.0.1:7001", &failure));
    return config;
}

static inline raftz_node *fresh_raftz_node(void) {
    raftz_config *config = fresh_raftz_config();
    raftz_node *node = start_in(good.network, config, NULL);
    raftz_config_free(config);
    return node;
}

static inline raftz_bytes *fresh_raftz_bytes(void) {
    raftz_bytes *bytes = NULL;
    OK(raftz_bytes_wrap(raftz_text("fresh"), on_free, &good, &bytes, &failure));
    tally_add(&wrapped, 1);
    return bytes;
}

static inline raftz_error *fresh_raftz_error(void) {
    raftz_error *error = NULL;
    CHECK(raftz_network_new(NULL, &error) == RAFTZ_NULL_ARG && error != NULL);
    return error;
}

static inline raftz_queue *fresh_raftz_queue(void) {
    raftz_queue *queue = NULL;
    OK(raftz_queue_new(NULL, &queue, &failure));
    return queue;
}

static struct disk kept = DISK_INIT, tested = DISK_INIT;

/* Only for calls that end before the next one: it is the same disk, empty again. */
static inline struct disk *fresh_disk(void) {
    CHECK(!tested.is_open);
    disk_wipe(&tested);
    return &tested;
}

/* A transport that reaches nobody. */

static inline raftz_status nowhere_open(void *user_data, raftz_links *links, raftz_sink *why,
                                        void **transport) {
    (void)why;
    *(raftz_links **)user_data = links;
    *transport = NULL;
    return RAFTZ_OK;
}

static inline raftz_status nowhere_send(void *transport, void *link_context,
                                        const raftz_message *messages, size_t count, size_t *taken,
                                        raftz_sink *why) {
    (void)transport, (void)messages, (void)why;
    CHECK(is_ours(link_context) && *taken == count);
    return RAFTZ_OK;
}

static inline void nowhere_end(void *transport, void *link_context, raftz_slice reason) {
    (void)transport;
    CHECK(is_ours(link_context) && reason.len > 0);
}

static inline raftz_transport nowhere(void) {
    raftz_transport transport = RAFTZ_TRANSPORT_INIT;
    transport.user_data = &good.links;
    transport.open = nowhere_open;
    transport.send = nowhere_send;
    transport.end = nowhere_end;
    return transport;
}

static inline raftz_node *start_nowhere(void) {
    raftz_config *config = fresh_raftz_config();
    raftz_transport transport = nowhere();
    raftz_node *node = NULL;
    OK(raftz_config_set_transport(config, &transport, &failure));
    OK(raftz_node_start(config, NULL, NULL, &node, &failure));
    raftz_config_free(config);
    return node;
}

/* It is ended soon, as nobody answers. */
static inline uint64_t fresh_link(void) {
    uint64_t link = 0;
    OK(raftz_links_up(good.links, 0, &good, &link, &failure));
    return link;
}

static inline raftz_links *fresh_raftz_links(void) {
    CHECK(good.spare_links > 0);
    return good.ended_links[--good.spare_links];
}

/* Made beforehand: none can come while a completion runs. */
static inline raftz_event *fresh_raftz_event(void) {
    CHECK(good.spare_events > 0);
    return good.events[--good.spare_events];
}

static inline raftz_state *fresh_raftz_state(void) {
    raftz_state *state = NULL;
    OK(raftz_node_state(good.node, &state, &failure));
    return state;
}

static inline raftz_network *fresh_raftz_network(void) {
    raftz_network *network = NULL;
    OK(raftz_network_new(&network, &failure));
    return network;
}

static inline raftz_core *fresh_raftz_core(void) {
    raftz_config *config = fresh_raftz_config();
    raftz_core_opts opts = RAFTZ_CORE_OPTS_INIT;
    raftz_core *core = NULL;
    const raftz_core_action *actions = NULL;
    size_t count = 0;
    opts.flags = RAFTZ_CORE_FOUNDS;
    OK(raftz_core_new(config, &opts, 1, 1, &core, &actions, &count, &failure));
    raftz_config_free(config);
    return core;
}

/* One that leads itself and has applied its first entry. */
static inline raftz_core *leading_core(void) {
    raftz_core *core = fresh_raftz_core();
    raftz_core_input input = RAFTZ_CORE_INPUT_INIT;
    raftz_core_info info = RAFTZ_CORE_INFO_INIT;
    input.kind = RAFTZ_INPUT_PERSISTED;
    input.with.persisted = (raftz_input_persisted){1, 1};
    while (info.applied_index == 0) {
        const raftz_core_action *actions = NULL;
        size_t count = 0;
        OK(raftz_core_step(core, 1, 1, &input, &actions, &count, &failure));
        for (size_t at = 0; at < count; at++) {
            if (actions[at].kind == RAFTZ_ACTION_PERSIST) {
                input.with.persisted.number = actions[at].with.persist.number;
            } else if (actions[at].kind == RAFTZ_ACTION_APPLY) {
                input.kind = RAFTZ_INPUT_APPLIED;
                input.with.index = actions[at].with.apply.last;
            }
        }
        OK(raftz_core_status(core, &info, &failure));
    }
    return core;
}

static inline raftz_kv_reply *fresh_raftz_kv_reply(void) {
    raftz_kv_reply *reply = NULL;
    OK(raftz_kv_reply_read(raftz_bytes_slice(good.answer), 0, &reply, &failure));
    return reply;
}

/* Made beforehand: a completion cannot wait for one. */
static inline raftz_sim_report *fresh_raftz_sim_report(void) {
    CHECK(good.spare_sim_reports > 0);
    return good.sim_reports[--good.spare_sim_reports];
}

/* Filled with this before a call, an output that the call leaves alone is full of it afterwards. */
#define FILLING 0x5e

static inline bool is_full_of(const void *place, size_t from, size_t to, unsigned char filling) {
    const unsigned char *bytes = place;
    for (size_t at = from; at < to; at++) {
        if (bytes[at] != filling) {
            return false;
        }
    }
    return true;
}

/* Any status will do that the header tells of. */
#define DOCUMENTED 1
/* As DOCUMENTED, but the argument that is NULL may be. */
#define NOT_NULL_ARG 2

static inline void judge(raftz_status status, int wanted, const raftz_status *told, size_t told_count,
                         bool has_error, raftz_error *error) {
    bool is_told = false;
    for (size_t at = 0; at < told_count; at++) {
        is_told = is_told || told[at] == status;
    }
    bool is_wanted = wanted == DOCUMENTED || status == wanted
                     || (wanted == NOT_NULL_ARG && status != RAFTZ_NULL_ARG);
    if (!is_told || !is_wanted) {
        fprintf(stderr, "%s: %s%s: %s\n", current, raftz_status_name(status),
                is_told ? "" : ", of which the header does not tell", raftz_error_message(error));
        problems++;
    }
    if (has_error) {
        /* An empty queue is no mishap, and leaves no error either. */
        if (status == RAFTZ_OK || status == RAFTZ_EMPTY) {
            CHECK(error == NULL);
        } else {
            CHECK(error != NULL && raftz_error_status(error) == status);
            CHECK(strlen(raftz_error_message(error)) > 0);
        }
        raftz_error_free(error);
    }
}

/* Where a case can be run. */
enum where { ANYWHERE, IN_COMPLETION, IN_APPLY, IN_QUERY, IN_READ, IN_WORKLOAD };

struct test_case {
    const char *name;
    enum where where;
    void (*run)(void);
};

static const struct test_case *all_cases;
static size_t case_count;

static void run_case(const struct test_case *it) {
    current = it->name;
    it->run();
}

static void run_all(enum where where) {
    for (size_t at = 0; at < case_count; at++) {
        if (all_cases[at].where == where) {
            run_case(&all_cases[at]);
        }
    }
}

static struct tally in_completion = TALLY_INIT;

static void completion(void *user_data, const raftz_outcome *outcome) {
    (void)outcome;
    run_case(user_data);
    tally_add(&in_completion, 1);
}

static raftz_status apply_with_cases(void *machine, const raftz_command *commands, size_t count,
                                     raftz_replies *replies) {
    (void)machine, (void)commands, (void)count;
    good.replies = replies;
    run_all(IN_APPLY);
    /* Whatever they answered is not meant. */
    return RAFTZ_CALLBACK_FAILED;
}

static raftz_status query_with_cases(void *machine, raftz_slice request, raftz_sink *reply) {
    (void)machine, (void)request;
    good.sink = reply;
    run_all(IN_QUERY);
    return RAFTZ_OK;
}

static void in_machine(void) {
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    raftz_config *config = fresh_raftz_config();
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    machine.apply = apply_with_cases;
    machine.query = query_with_cases;
    opts.level = RAFTZ_READ_STALE;
    opts.timeout_ms = 60000;
    raftz_node *node = start_in(good.network, config, &machine);
    raftz_status read = raftz_read_wait(node, raftz_text("x"), &opts, &reply, NULL);
    CHECK(read == RAFTZ_OK || read == RAFTZ_READ_FAILED);
    raftz_bytes_free(reply.bytes);
    current = "in apply";
    WANT(RAFTZ_UNKNOWN_FAULTED, raftz_propose_wait(node, raftz_text("x"), NULL, &reply, &failure));
    CHECK(good.replies != NULL && good.sink != NULL);
    stop_and_free(node);
    raftz_config_free(config);
}

static raftz_status read_with_cases(void *store, uint32_t group, uint64_t first, uint64_t last,
                                    raftz_entries *entries) {
    (void)store, (void)group, (void)first, (void)last;
    good.entries = entries;
    run_all(IN_READ);
    /* Whatever they gave is not meant. */
    return RAFTZ_OK;
}

static void in_store(void) {
    raftz_storage storage = disk_table(fresh_disk());
    storage.read = read_with_cases;
    raftz_status status = raftz_storage_conformance(&storage, NULL, &failure);
    current = "in read";
    CHECK(good.entries != NULL);
    WANT(RAFTZ_STORAGE, status);
}

static raftz_status workload_with_cases(void *user_data, raftz_sim_chooser *chooser, raftz_sink *command) {
    (void)user_data, (void)command;
    good.chooser = chooser;
    run_all(IN_WORKLOAD);
    return RAFTZ_CALLBACK_FAILED;
}

static void in_workload(void) {
    raftz_sim_report *report = NULL;
    raftz_sim_opts opts = RAFTZ_SIM_OPTS_INIT;
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    machine.create = on_create;
    machine.apply = on_apply;
    opts.workload = workload_with_cases;
    raftz_status status = raftz_sim_run(&machine, 7, &opts, &report, &failure);
    current = "in workload";
    CHECK(good.chooser != NULL && report == NULL);
    WANT(RAFTZ_CALLBACK_FAILED, status);
}

static void died(int number) {
    const char *name = current;
    ssize_t written = write(2, name, strlen(name));
    written += write(2, number == SIGALRM ? ": hangs\n" : ": crashes\n", number == SIGALRM ? 8 : 10);
    _exit(written > 0 ? 1 : 2);
}

static void make_good(void) {
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    memset(good.long_text, 'x', sizeof good.long_text - 1);
    good.network = fresh_raftz_network();
    good.node = fresh_raftz_node();
    good.stopped = fresh_raftz_node();
    OK(raftz_node_stop(good.stopped, 60000, &failure));
    OK(raftz_node_wait_for_leader(good.node, 60000, NULL, &failure));
    good.command = set_command("key", "value");
    good.slice = raftz_bytes_slice(good.command);
    good.commands[0] = good.commands[1] = good.slice;
    good.bad_commands[0] = good.slice;
    good.bad_commands[1] = (raftz_slice){NULL, 1};
    reply = propose_surely(good.node, good.slice);
    OK(raftz_node_wait_for_applied(good.node, reply.index, 60000, &failure));
    raftz_bytes_free(reply.bytes);
    OK(raftz_kv_scan(raftz_text(""), NULL, 9, &good.bytes, &failure));
    opts.level = RAFTZ_READ_STALE;
    OK(raftz_read_wait(good.node, raftz_bytes_slice(good.bytes), &opts, &reply, &failure));
    good.answer = reply.bytes;
    good.queue = fresh_raftz_queue();
    for (; good.spare_events < sizeof good.events / sizeof *good.events; good.spare_events++) {
        raftz_event **event = &good.events[good.spare_events];
        OK(raftz_propose_queued(good.node, &good.slice, 1, NULL, good.queue, &good, &failure));
        OK(raftz_queue_next(good.queue, RAFTZ_WAIT_FOREVER, event, &failure));
    }
    good.event = fresh_raftz_event();
    /* Of a node that has a peer. */
    raftz_config *config = fresh_raftz_config();
    OK(raftz_config_add_founder(config, 1 << 20, "127.0.0.1:7002", &failure));
    raftz_node *lonely = start_in(good.network, config, NULL);
    OK(raftz_node_state(lonely, &good.state, &failure));
    stop_and_free(lonely);
    raftz_config_free(config);
    good.kv_reply = fresh_raftz_kv_reply();
    raftz_machine machine = RAFTZ_MACHINE_INIT;
    machine.create = on_create;
    machine.apply = on_apply;
    for (; good.spare_sim_reports < sizeof good.sim_reports / sizeof *good.sim_reports; good.spare_sim_reports++) {
        raftz_sim_report **report = &good.sim_reports[good.spare_sim_reports];
        OK(raftz_sim_run(&machine, 7, NULL, report, &failure));
    }
    good.sim_report = fresh_raftz_sim_report();
    good.error = fresh_raftz_error();
    config = fresh_raftz_config();
    raftz_storage storage = disk_table(&kept);
    OK(raftz_config_set_storage(config, &storage, &failure));
    OK(raftz_node_bootstrap(config, &failure));
    good.keeper = start_in(good.network, config, NULL);
    OK(raftz_node_wait_for_leader(good.keeper, 60000, NULL, &failure));
    good.completions = kept.completions;
    good.core = leading_core();
    raftz_config_free(config);
    for (; good.spare_links < sizeof good.ended_links / sizeof *good.ended_links; good.spare_links++) {
        stop_and_free(start_nowhere());
        good.ended_links[good.spare_links] = good.links;
    }
    good.linked = start_nowhere();
}

static void free_good(void) {
    raftz_core_free(good.core);
    stop_and_free(good.linked);
    raftz_links_free(good.links);
    while (good.spare_links > 0) {
        raftz_links_free(fresh_raftz_links());
    }
    stop_and_free(good.keeper);
    disk_wipe(&kept);
    disk_wipe(&tested);
    stop_and_free(good.node);
    raftz_node_free(good.stopped);
    raftz_queue_free(good.queue);
    raftz_event_free(good.event);
    while (good.spare_events > 0) {
        raftz_event_free(fresh_raftz_event());
    }
    raftz_state_free(good.state);
    raftz_bytes_free(good.bytes);
    raftz_bytes_free(good.command);
    raftz_bytes_free(good.answer);
    raftz_kv_reply_free(good.kv_reply);
    raftz_sim_report_free(good.sim_report);
    while (good.spare_sim_reports > 0) {
        raftz_sim_report_free(fresh_raftz_sim_report());
    }
    raftz_error_free(good.error);
    raftz_network_free(good.network);
}

static int run_cases(const struct test_case *cases, size_t count) {
    watchdog(180);
    struct sigaction action = {0};
    action.sa_handler = died;
    sigaction(SIGALRM, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
    all_cases = cases;
    case_count = count;
    current = "the good values";
    make_good();
    run_all(ANYWHERE);
    in_machine();
    in_store();
    in_workload();
    uint64_t completions = 0;
    for (size_t at = 0; at < count; at++) {
        if (cases[at].where == IN_COMPLETION) {
            OK(raftz_propose(good.node, good.slice, NULL, completion, (void *)&cases[at], &failure));
            tally_wait(&in_completion, ++completions);
        }
    }
    current = "the end";
    free_good();
    /* What was accepted has ended, and what was given away is gone. */
    tally_wait(&ended, tally_now(&accepted));
    CHECK(tally_now(&ended) == tally_now(&accepted));
    CHECK(tally_now(&freed) == tally_now(&wrapped));
    CHECK(tally_now(&destroyed) == tally_now(&taken));
    return problems == 0 ? 0 : 1;
}

#endif
