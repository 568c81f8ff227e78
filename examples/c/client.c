/*
 * Three nodes, and clients on each of them that write at the same time.
 *
 * What a client must do is tell the ends of a call apart. Done is done. Rejected was done too: the
 * state machine's own answer is that the command makes no sense. Refused is certainly not in the
 * log: try again, perhaps elsewhere. Unknown may have happened or may yet: whether to try again
 * depends on the command, and this example has one of each kind.
 *
 * Then the leadership is handed to another node. In the end a leader is stopped in the middle of a burst, and each of the burst's outcomes is held
 * against what the other nodes have.
 */
#define _GNU_SOURCE

#include <pthread.h>
#include <semaphore.h>

#include "common.h"

enum { CLIENTS = 6, WRITES = 100, BURST = 2000 };

typedef enum { DONE, REJECTED, REFUSED, UNKNOWN, KINDS } kind;

/* What one client is and saw. */
typedef struct client {
    const trio *nodes;
    int number;
    /* The node it talks to, from 0. */
    size_t at;
    /* Whether that node may hand commands to the leader; otherwise the client goes there itself. */
    bool may_forward;
    bool gave_up;
    uint64_t ended[KINDS];
    /* Increments of the counter that are certain, and those that may have happened. */
    uint64_t counted, perhaps_counted;
    /* Highest entry that was acknowledged. */
    uint64_t last;
} client;

static kind kind_of(raftz_status status, uint32_t flags) {
    if (status == RAFTZ_OK) {
        return flags & RAFTZ_OUTCOME_REJECTED ? REJECTED : DONE;
    }
    return flags & RAFTZ_OUTCOME_UNKNOWN ? UNKNOWN : REFUSED;
}

/* Proposes once, and counts how it ended. After a refusal the client may talk to another node. */
static kind propose(client *self, const raftz_bytes *command) {
    raftz_error *error = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_propose_opts opts = RAFTZ_PROPOSE_OPTS_INIT;
    opts.timeout_ms = PATIENCE_MS / 2;
    opts.forward = self->may_forward ? RAFTZ_FORWARD_YES : RAFTZ_FORWARD_NO;
    const raftz_status status = raftz_propose_wait(
        self->nodes->node[self->at], raftz_bytes_slice(command), &opts, &reply, &error);
    const uint32_t unknown = raftz_error_is_outcome_unknown(error) ? RAFTZ_OUTCOME_UNKNOWN : 0;
    const kind ended = kind_of(status, reply.flags | unknown);
    self->ended[ended]++;
    if (reply.index > self->last) {
        self->last = reply.index;
    }
    const uint64_t leader = raftz_error_leader_id(error);
    if (status == RAFTZ_NOT_LEADER && leader != 0) {
        self->at = leader - 1;
    } else if (status != RAFTZ_OK && !raftz_error_is_retriable(error) && unknown == 0) {
        fprintf(stderr, "client %d: %s\n", self->number, raftz_error_message(error));
        self->gave_up = true;
    } else if (status != RAFTZ_OK) {
        pause_ms(10);
    }
    raftz_bytes_free(reply.bytes);
    raftz_error_free(error);
    return ended;
}

/* Proposes until the outcome is one to be content with. Takes the command over. */
static kind insist(client *self, raftz_bytes *command, bool unknown_too) {
    const uint64_t deadline = now_ms() + PATIENCE_MS;
    kind ended = REFUSED;
    while (!self->gave_up) {
        ended = propose(self, command);
        if (ended == DONE || ended == REJECTED || (ended == UNKNOWN && !unknown_too)) {
            break;
        }
        if (now_ms() > deadline) {
            fprintf(stderr, "client %d: nothing is done for %d ms\n", self->number, PATIENCE_MS);
            self->gave_up = true;
        }
    }
    raftz_bytes_free(command);
    return ended;
}

static void pair(char *key, char *value, int number, int n) {
    sprintf(key, "%d/%d", number, n);
    sprintf(value, "value %d of client %d", n, number);
}

/* Setting a key to a value twice is the same as doing it once: every failure may be tried again. */
static void set(client *self, const char *key, const char *value) {
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    self->gave_up = !ok("set", raftz_kv_set(raftz_text(key), raftz_text(value), &command, &error),
                        &error) ||
                    insist(self, command, true) != DONE;
}

/* Counting twice is not counting once: an unknown outcome is left alone. */
static kind count(client *self, const char *key) {
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    if (!ok("count", raftz_kv_increment(raftz_text(key), 1, &command, &error), &error)) {
        self->gave_up = true;
        return REFUSED;
    }
    return insist(self, command, false);
}

static void *client_main(void *argument) {
    client *self = argument;
    for (int n = 0; n < WRITES && !self->gave_up; n++) {
        char key[64], value[64];
        pair(key, value, self->number, n);
        set(self, key, value);
        if (n % 10 == 0 && !self->gave_up) {
            const kind ended = count(self, "counter");
            self->counted += ended == DONE;
            self->perhaps_counted += ended == UNKNOWN;
        }
        if (n % 50 == 0 && !self->gave_up && count(self, key) == DONE) {
            fprintf(stderr, "client %d: a text was incremented\n", self->number);
            self->gave_up = true;
        }
    }
    return NULL;
}

/* Runs all clients to their end and adds up what they saw. */
static bool run_clients(const trio *nodes, client *sum) {
    client clients[CLIENTS];
    pthread_t threads[CLIENTS];
    int running = 0;
    memset(clients, 0, sizeof clients);
    for (; running < CLIENTS; running++) {
        clients[running].nodes = nodes;
        clients[running].number = running;
        clients[running].at = (size_t)running % NODES;
        clients[running].may_forward = running < CLIENTS / 2;
        if (pthread_create(&threads[running], NULL, client_main, &clients[running]) != 0) {
            fprintf(stderr, "no thread for client %d\n", running);
            sum->gave_up = true;
            break;
        }
    }
    for (int at = 0; at < running; at++) {
        const client *one = &clients[at];
        pthread_join(threads[at], NULL);
        for (int ended = 0; ended < KINDS; ended++) {
            sum->ended[ended] += one->ended[ended];
        }
        sum->counted += one->counted;
        sum->perhaps_counted += one->perhaps_counted;
        sum->last = one->last > sum->last ? one->last : sum->last;
        sum->gave_up = sum->gave_up || one->gave_up;
    }
    printf("%d clients: %" PRIu64 " done, %" PRIu64 " rejected, %" PRIu64 " refused, %" PRIu64
           " unknown\n",
           running, sum->ended[DONE], sum->ended[REJECTED], sum->ended[REFUSED],
           sum->ended[UNKNOWN]);
    return !sum->gave_up;
}

/* Whether the nodes that run have all that was acknowledged, and the same. */
static bool check_stores(const trio *nodes, const client *sum) {
    uint64_t first_digest = 0;
    for (int at = 0; at < NODES; at++) {
        const raftz_node *node = nodes->node[at];
        uint64_t keys = 0, digest = 0;
        if (!kv_digest(node, sum->last, &keys, &digest)) {
            return false;
        }
        printf("node %d: %" PRIu64 " keys, digest %016" PRIx64 "\n", at + 1, keys, digest);
        first_digest = at == 0 ? digest : first_digest;
        if (digest != first_digest) {
            fprintf(stderr, "the nodes' stores differ\n");
            return false;
        }
        for (int n = 0; n < CLIENTS * WRITES; n++) {
            char key[64], value[64];
            pair(key, value, n / WRITES, n % WRITES);
            if (kv_find(node, sum->last, key, value) != KV_EQUAL) {
                fprintf(stderr, "node %d does not have %s = %s\n", at + 1, key, value);
                return false;
            }
        }
    }
    return true;
}

/* Whether the counter is what the outcomes allow. */
static bool check_counter(const trio *nodes, const client *sum) {
    const uint64_t most = sum->counted + sum->perhaps_counted;
    for (uint64_t number = sum->counted; number <= most; number++) {
        char text[32];
        sprintf(text, "%" PRIu64, number);
        if (kv_find(nodes->node[0], sum->last, "counter", text) == KV_EQUAL) {
            printf("counter: %s, between %" PRIu64 " certain and %" PRIu64
                   " possible increments\n",
                   text, sum->counted, most);
            return true;
        }
    }
    fprintf(stderr, "the counter is not what the outcomes allow\n");
    return false;
}

/* A command of the burst. The node's callback thread writes `ended` and `times` while the node
 * runs; they are read after it has stopped, and need no lock. */
typedef struct shot {
    char key[32];
    kind ended;
    int times;
} shot;

static shot shots[BURST];
/* Posted at each completion. */
static sem_t completions;

static void burst_done(void *user_data, const raftz_outcome *outcome) {
    shot *one = user_data;
    one->ended = kind_of(outcome->status, outcome->flags);
    one->times++;
    sem_post(&completions);
}

static bool fire(raftz_node *node, shot *one) {
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    const raftz_slice key = raftz_text(one->key);
    if (!ok("set", raftz_kv_set(key, raftz_text("fired"), &command, &error), &error)) {
        return false;
    }
    if (raftz_propose_bytes(node, command, NULL, burst_done, one, &error) != RAFTZ_OK) {
        /* Not accepted: it has no effect, and its completion is never called. */
        one->ended = REFUSED;
        one->times = 1;
        raftz_error_free(error);
        sem_post(&completions);
    }
    return true;
}

/* Proposes all, and stops the node when the first are done and the last have just been proposed. */
static bool burst(raftz_node **node) {
    struct timespec deadline = {0, 0};
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_MS / 1000;
    bool fired = true;
    for (int n = 0; n < BURST && fired; n++) {
        sprintf(shots[n].key, "burst/%d", n);
        fired = fire(*node, &shots[n]);
        if (n == BURST / 2 && sem_timedwait(&completions, &deadline) != 0) {
            perror("no write of the burst has ended");
            fired = false;
        }
    }
    /* After this no callback runs any more, and each has run once. */
    return node_end(node) && fired;
}

/* Whether what each command of the burst was said to be is what the other nodes have. */
static bool check_burst(const trio *nodes, size_t leader) {
    client writer = {.nodes = nodes, .number = CLIENTS, .at = (leader + 1) % NODES,
                     .may_forward = true};
    uint64_t ended[KINDS] = {0}, happened = 0;
    /* Acknowledged now, so it is behind all that the old leader has left in the log. */
    set(&writer, "after the burst", "yes");
    if (writer.gave_up) {
        return false;
    }
    for (size_t at = 0; at < NODES; at++) {
        happened = 0;
        memset(ended, 0, sizeof ended);
        for (int n = 0; at != leader && n < BURST; n++) {
            const kv_found found =
                kv_find(nodes->node[at], writer.last, shots[n].key, "fired");
            ended[shots[n].ended]++;
            happened += shots[n].ended == UNKNOWN && found == KV_EQUAL;
            const bool agrees = (found == KV_EQUAL && shots[n].ended != REFUSED) ||
                                (found == KV_ABSENT && shots[n].ended != DONE);
            if (shots[n].times != 1 || shots[n].ended == REJECTED || !agrees) {
                fprintf(stderr, "node %zu and the outcome of %s disagree\n", at + 1, shots[n].key);
                return false;
            }
        }
        if (at != leader) {
            printf("node %zu: %" PRIu64 " done, all there; %" PRIu64 " refused, none there; "
                   "%" PRIu64 " unknown, %" PRIu64 " of them there\n",
                   at + 1, ended[DONE], ended[REFUSED], ended[UNKNOWN], happened);
        }
    }
    return true;
}

/* Moves the leadership away from a node, as one does before a machine is shut down for its upkeep, and
 * shows what the old leader has measured until then. */
static bool hand_over(const trio *nodes) {
    raftz_error *error = NULL;
    raftz_metrics_info info = RAFTZ_METRICS_INFO_INIT;
    uint64_t old = 0, leader = 0;
    if (!ok("leader", raftz_node_wait_for_leader(nodes->node[0], PATIENCE_MS, &old, &error),
            &error) ||
        !ok("metrics", raftz_metrics(nodes->node[old - 1], &info, &error), &error)) {
        return false;
    }
    printf("node %" PRIu64 " has led: %" PRIu64 " commands committed, %" PRIu64
           " writes of its log\n",
           old, info.proposals_committed, info.writes);
    const uint64_t begun = now_ms();
    /* 0: to whoever suits best. */
    if (!ok("transfer",
            raftz_transfer_leadership_wait(nodes->node[old - 1], 0, PATIENCE_MS, &leader, &error),
            &error)) {
        return false;
    }
    printf("it handed over to node %" PRIu64 " in %" PRIu64 " ms\n", leader, now_ms() - begun);
    if (leader == old || info.proposals_committed == 0) {
        fprintf(stderr, "leadership has not moved, or nothing was counted\n");
        return false;
    }
    return true;
}

static bool stop_a_leader(trio *nodes) {
    raftz_error *error = NULL;
    uint64_t leader = 0;
    if (!ok("leader", raftz_node_wait_for_leader(nodes->node[0], PATIENCE_MS, &leader, &error),
            &error)) {
        return false;
    }
    printf("stopping node %" PRIu64 ", the leader, with %d writes on the way\n", leader, BURST);
    if (sem_init(&completions, 0, 0) != 0) {
        perror("semaphore");
        return false;
    }
    const bool as_claimed =
        burst(&nodes->node[leader - 1]) && check_burst(nodes, leader - 1);
    sem_destroy(&completions);
    return as_claimed;
}

int main(void) {
    raftz_error *error = NULL;
    uint64_t leader = 0;
    trio nodes = {NULL, {NULL, NULL, NULL}};
    client sum;
    memset(&sum, 0, sizeof sum);
    char *directory = scratch_new("client");
    const trio_opts opts = {.directory = directory};
    bool as_claimed =
        directory != NULL && trio_start(&nodes, &opts) &&
        ok("leader", raftz_node_wait_for_leader(nodes.node[0], PATIENCE_MS, &leader, &error),
           &error) &&
        run_clients(&nodes, &sum) && check_stores(&nodes, &sum) && check_counter(&nodes, &sum);
    if (as_claimed && (sum.ended[REJECTED] == 0 || sum.ended[REFUSED] == 0)) {
        fprintf(stderr, "nobody was rejected, or nobody was refused\n");
        as_claimed = false;
    }
    as_claimed = as_claimed && hand_over(&nodes) && stop_a_leader(&nodes);
    as_claimed = trio_stop(&nodes) && as_claimed;
    as_claimed = scratch_remove(directory) && as_claimed;
    return report("client", as_claimed);
}
