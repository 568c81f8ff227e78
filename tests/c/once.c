/* Every call that was accepted ends exactly once: eight threads propose while leaders are stopped and come
 * back; and the orders in which things may be freed. */
#include "cluster.h"

#include <stdatomic.h>

#define THREADS 8

/* One call: how often it has ended. */
struct call {
    _Atomic unsigned ended;
    unsigned commands;
};

struct worker {
    pthread_t thread;
    struct stress *stress;
    unsigned number;
    struct call *calls;
    size_t accepted;
};

struct stress {
    struct cluster cluster;
    /* A node may be freed only while nobody calls it. */
    pthread_rwlock_t use[NODES];
    raftz_queue *queue;
    struct tally accepted, ended, told;
    struct worker workers[THREADS];
    size_t calls_max;
    bool is_over;
    pthread_mutex_t lock;
};

static struct stress stress;

static void end_call(struct call *call, size_t count) {
    CHECK(call->commands == count);
    CHECK(atomic_fetch_add(&call->ended, 1) == 0);
    tally_add(&stress.ended, 1);
}

static void check_outcome(const raftz_outcome *outcome) {
    bool is_done = outcome->status == RAFTZ_OK;
    bool is_unknown = (outcome->flags & RAFTZ_OUTCOME_UNKNOWN) != 0;
    CHECK(is_done == (outcome->index > 0));
    CHECK(is_unknown == (outcome->status <= -32 && outcome->status > -64));
}

static void on_done(void *user_data, const raftz_outcome *outcome) {
    check_outcome(outcome);
    end_call(user_data, 1);
}

static void on_read(void *user_data, const raftz_outcome *outcome) {
    (void)outcome;
    end_call(user_data, 1);
}

static void on_batch(void *user_data, const raftz_outcome *outcomes, size_t count) {
    for (size_t at = 0; at < count; at++) {
        check_outcome(&outcomes[at]);
    }
    end_call(user_data, count);
}

static bool is_over(void) {
    pthread_mutex_lock(&stress.lock);
    bool over = stress.is_over;
    pthread_mutex_unlock(&stress.lock);
    return over;
}

static void *work(void *argument) {
    struct worker *worker = argument;
    raftz_read_opts read = RAFTZ_READ_OPTS_INIT;
    raftz_bytes *command = set_command("k", "v");
    raftz_slice slice = raftz_bytes_slice(command), commands[3] = {slice, slice, slice};
    read.level = RAFTZ_READ_STALE;
    for (size_t at = 0; at < stress.calls_max && !is_over(); at++) {
        struct call *call = &worker->calls[at];
        unsigned which = (unsigned)(at + worker->number) % NODES;
        raftz_status status = RAFTZ_SHUT_DOWN;
        /* Counted before it can end. */
        tally_add(&stress.accepted, 1);
        pthread_rwlock_rdlock(&stress.use[which]);
        raftz_node *node = stress.cluster.nodes[which];
        call->commands = 1;
        switch (at / NODES % 6) {
        case 0:
            status = raftz_propose(node, slice, NULL, on_done, call, NULL);
            break;
        case 1:
            call->commands = 3;
            status = raftz_propose_batch(node, commands, 3, NULL, on_batch, call, NULL);
            break;
        case 2:
            call->commands = 2;
            status = raftz_propose_queued(node, commands, 2, NULL, stress.queue, call, NULL);
            break;
        case 3:
            status = raftz_propose_queued(node, commands, 1, NULL, stress.queue, call, NULL);
            break;
        case 4:
            status = raftz_read_queued(node, slice, &read, stress.queue, call, NULL);
            break;
        default:
            status = raftz_read(node, slice, &read, on_read, call, NULL);
        }
        pthread_rwlock_unlock(&stress.use[which]);
        if (status == RAFTZ_OK) {
            worker->accepted++;
        } else {
            CHECK(status == RAFTZ_SHUT_DOWN || status == RAFTZ_BUSY);
            /* What was refused never ends. */
            call->commands = 0;
            tally_add(&stress.ended, 1);
            moment();
        }
        if (tally_now(&stress.accepted) - tally_now(&stress.ended) > 2000) {
            moment();
        }
    }
    raftz_bytes_free(command);
    return NULL;
}

static void *take(void *argument) {
    (void)argument;
    for (;;) {
        raftz_event *event = NULL;
        raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
        raftz_status status = raftz_queue_next(stress.queue, RAFTZ_WAIT_FOREVER, &event, NULL);
        if (status == RAFTZ_CLOSED) {
            return NULL;
        }
        CHECK(status == RAFTZ_OK);
        OK(raftz_event_get(event, &info, &failure));
        CHECK(info.kind == RAFTZ_EVENT_COMPLETION);
        if (info.outcome_count > 1) {
            on_batch(info.user_data, info.outcomes, info.outcome_count);
        } else {
            /* Perhaps a read, which has no index. */
            end_call(info.user_data, info.outcome_count);
        }
        raftz_event_free(event);
    }
}

/* Stops the leader while calls are under way, and starts it anew. */
static void stop_leader(void) {
    unsigned leader = cluster_leader(&stress.cluster);
    uint64_t ended = tally_now(&stress.ended);
    tally_wait(&stress.ended, ended + 200);
    OK(raftz_node_stop(stress.cluster.nodes[leader], 60000, &failure));
    pthread_rwlock_wrlock(&stress.use[leader]);
    raftz_node_free(stress.cluster.nodes[leader]);
    stress.cluster.nodes[leader] =
        start_in(stress.cluster.network, stress.cluster.configs[leader], NULL);
    pthread_rwlock_unlock(&stress.use[leader]);
}

static void stress_test(const char *folder, unsigned stops) {
    pthread_t taker;
    stress.calls_max = 200000;
    pthread_mutex_init(&stress.lock, NULL);
    stress.accepted = stress.ended = (struct tally)TALLY_INIT;
    OK(raftz_queue_new(NULL, &stress.queue, &failure));
    cluster_configure(&stress.cluster);
    for (unsigned at = 0; at < NODES; at++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/once-%u", folder, at);
        OK(raftz_config_set_directory(stress.cluster.configs[at], path, &failure));
        OK(raftz_node_bootstrap(stress.cluster.configs[at], &failure));
        pthread_rwlock_init(&stress.use[at], NULL);
    }
    cluster_start(&stress.cluster, NULL);
    cluster_leader(&stress.cluster);
    CHECK(pthread_create(&taker, NULL, take, NULL) == 0);
    for (unsigned at = 0; at < THREADS; at++) {
        struct worker *worker = &stress.workers[at];
        worker->number = at;
        worker->calls = calloc(stress.calls_max, sizeof *worker->calls);
        CHECK(pthread_create(&worker->thread, NULL, work, worker) == 0);
    }
    for (unsigned stop = 0; stop < stops; stop++) {
        stop_leader();
    }
    pthread_mutex_lock(&stress.lock);
    stress.is_over = true;
    pthread_mutex_unlock(&stress.lock);
    size_t accepted = 0;
    for (unsigned at = 0; at < THREADS; at++) {
        pthread_join(stress.workers[at].thread, NULL);
        accepted += stress.workers[at].accepted;
    }
    tally_wait(&stress.ended, tally_now(&stress.accepted));
    cluster_end(&stress.cluster);
    raftz_queue *queue = stress.queue;
    /* After the stop nothing ends any more; each accepted call has, and no other. */
    size_t ended = 0;
    for (unsigned at = 0; at < THREADS; at++) {
        for (size_t call = 0; call < stress.calls_max; call++) {
            unsigned times = stress.workers[at].calls[call].ended;
            CHECK(times == (stress.workers[at].calls[call].commands > 0));
            ended += times;
        }
        free(stress.workers[at].calls);
    }
    CHECK(ended == accepted && accepted > 1000);
    raftz_queue_free(queue);
    pthread_join(taker, NULL);
    printf("%zu calls of %u threads over %u stops\n", accepted, THREADS, stops);
}

/* A node that is freed inside its own completion, and objects that are. */
struct freeing {
    raftz_node *node;
    raftz_queue *queue;
    raftz_config *config;
    raftz_network *network;
    struct tally told, destroyed;
};

static void free_all(void *user_data, const raftz_outcome *outcome) {
    struct freeing *freeing = user_data;
    CHECK(outcome->status == RAFTZ_OK);
    raftz_node_free(freeing->node);
    raftz_queue_free(freeing->queue);
    raftz_config_free(freeing->config);
    raftz_network_free(freeing->network);
    tally_add(&freeing->told, 1);
}

static void on_destroy(void *user_data) {
    tally_add(&((struct freeing *)user_data)->destroyed, 1);
}

static void on_event(void *user_data, const raftz_event_info *event) {
    (void)user_data, (void)event;
}

static void free_inside(void) {
    struct freeing freeing = {NULL, NULL, NULL, NULL, TALLY_INIT, TALLY_INIT};
    OK(raftz_network_new(&freeing.network, &failure));
    OK(raftz_queue_new(NULL, &freeing.queue, &failure));
    freeing.config = new_config(1, 1);
    OK(raftz_config_set_event_callback(freeing.config, RAFTZ_EVENTS_ALL, on_event, &freeing, on_destroy,
                                       &failure));
    freeing.node = start_in(freeing.network, freeing.config, NULL);
    OK(raftz_node_wait_for_leader(freeing.node, 60000, NULL, &failure));
    raftz_bytes *command = set_command("k", "v");
    OK(raftz_propose(freeing.node, raftz_bytes_slice(command), NULL, free_all, &freeing, &failure));
    tally_wait(&freeing.told, 1);
    raftz_bytes_free(command);
    /* Its threads end by themselves, and the last of them ends what they used. */
    tally_wait(&freeing.destroyed, 1);
}

static void count_done(void *user_data, const raftz_outcome *outcome) {
    (void)outcome;
    tally_add(user_data, 1);
}

/* Freed without a stop, with calls under way: they end all the same, once each. */
static void free_without_stop(void) {
    struct tally told = TALLY_INIT;
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    OK(raftz_network_new(&network, &failure));
    raftz_node *node = start_in(network, config, NULL);
    OK(raftz_node_wait_for_leader(node, 60000, NULL, &failure));
    raftz_config_free(config);
    raftz_network_free(network);
    raftz_bytes *command = set_command("k", "v");
    for (unsigned at = 0; at < 1000; at++) {
        OK(raftz_propose(node, raftz_bytes_slice(command), NULL, count_done, &told, &failure));
    }
    raftz_node_free(node);
    tally_wait(&told, 1000);
    CHECK(tally_now(&told) == 1000);
    raftz_bytes_free(command);
}

/* On a node that is stopped nothing is accepted that would have to end later, and nothing ends within the
 * call itself: its caller may hold a lock that the completion takes. */
static void inside_the_call(void *user_data, const raftz_outcome *outcome) {
    (void)outcome;
    CHECK(pthread_mutex_trylock(user_data) == 0);
    pthread_mutex_unlock(user_data);
}

static void batch_inside_the_call(void *user_data, const raftz_outcome *outcomes, size_t count) {
    (void)outcomes, (void)count;
    inside_the_call(user_data, NULL);
}

static void never_within(void) {
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    raftz_read_opts opts = RAFTZ_READ_OPTS_INIT;
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    opts.level = RAFTZ_READ_STALE;
    OK(raftz_network_new(&network, &failure));
    raftz_node *node = start_in(network, config, NULL);
    OK(raftz_node_stop(node, 60000, &failure));
    pthread_mutex_lock(&lock);
    raftz_status status = raftz_propose(node, raftz_text("x"), NULL, inside_the_call, &lock, NULL);
    CHECK(status == RAFTZ_SHUT_DOWN);
    CHECK(raftz_propose_batch(node, NULL, 0, NULL, batch_inside_the_call, &lock, NULL) == RAFTZ_SHUT_DOWN);
    CHECK(raftz_read(node, raftz_text("x"), &opts, inside_the_call, &lock, NULL) == RAFTZ_SHUT_DOWN);
    pthread_mutex_unlock(&lock);
    raftz_node_free(node);
    raftz_config_free(config);
    raftz_network_free(network);
}

int main(int count, char **arguments) {
    watchdog(150);
    CHECK(count >= 2);
    if (strcmp(arguments[1], "never-within") == 0) {
        never_within();
    } else if (strcmp(arguments[1], "freeing") == 0) {
        free_inside();
        free_without_stop();
    } else {
        CHECK(count == 3);
        stress_test(arguments[1], (unsigned)atoi(arguments[2]));
    }
    return 0;
}
