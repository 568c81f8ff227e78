/* Log lines: each node's go to its own function, which must not wait, and whose data ends once. */
#include "cluster.h"

struct log {
    raftz_node *node;
    struct tally lines, destroyed;
    uint32_t level;
    uint64_t id;
    pthread_mutex_t lock;
};

static void on_line(void *user_data, uint32_t level, raftz_slice line) {
    struct log *log = user_data;
    CHECK(level >= RAFTZ_LOG_ERROR && level <= log->level && line.len > 0);
    CHECK(line.data[line.len - 1] != '\n');
    char field[32];
    snprintf(field, sizeof field, " node=%u", (unsigned)log->id);
    CHECK(has(line, field) && has(line, " group=1"));
    char other[32];
    snprintf(other, sizeof other, "node %u leads", log->id == 11 ? 22 : 11);
    CHECK(!has(line, other));
    pthread_mutex_lock(&log->lock);
    raftz_node *node = log->node;
    pthread_mutex_unlock(&log->lock);
    if (node != NULL) {
        raftz_reply reply = RAFTZ_REPLY_INIT;
        raftz_error *error = NULL;
        CHECK(raftz_propose_wait(node, raftz_text("x"), NULL, &reply, &error) == RAFTZ_IN_CALLBACK);
        raftz_error_free(error);
        CHECK(raftz_node_stop(node, 1, NULL) == RAFTZ_IN_CALLBACK);
    }
    tally_add(&log->lines, 1);
}

static void on_destroy(void *user_data) {
    tally_add(&((struct log *)user_data)->destroyed, 1);
}

static void set_node(struct log *log, raftz_node *node) {
    pthread_mutex_lock(&log->lock);
    log->node = node;
    pthread_mutex_unlock(&log->lock);
}

int main(void) {
    watchdog(60);
    static struct log logs[2] = {
        {NULL, TALLY_INIT, TALLY_INIT, RAFTZ_LOG_TRACE, 11, PTHREAD_MUTEX_INITIALIZER},
        {NULL, TALLY_INIT, TALLY_INIT, RAFTZ_LOG_INFO, 22, PTHREAD_MUTEX_INITIALIZER},
    };
    raftz_network *networks[2] = {NULL, NULL};
    raftz_config *configs[2] = {NULL, NULL};
    raftz_node *nodes[2];
    for (unsigned at = 0; at < 2; at++) {
        OK(raftz_network_new(&networks[at], &failure));
        OK(raftz_config_new(logs[at].id, "c1", &configs[at], &failure));
        OK(raftz_config_add_founder(configs[at], logs[at].id, "127.0.0.1:7001", &failure));
        OK(raftz_config_set_log(configs[at], logs[at].level, on_line, &logs[at], on_destroy, &failure));
        nodes[at] = start_in(networks[at], configs[at], NULL);
        set_node(&logs[at], nodes[at]);
    }
    for (unsigned at = 0; at < 2; at++) {
        OK(raftz_node_wait_for_leader(nodes[at], 60000, NULL, &failure));
        tally_wait(&logs[at].lines, 2);
    }
    /* While one is quiet the other's lines go on. */
    set_node(&logs[0], NULL);
    OK(raftz_node_stop(nodes[0], 60000, &failure));
    uint64_t quiet = tally_now(&logs[0].lines);
    set_node(&logs[1], NULL);
    stop_and_free(nodes[1]);
    CHECK(tally_now(&logs[1].destroyed) == 0);
    uint64_t before = tally_now(&logs[1].lines);
    nodes[1] = start_in(networks[1], configs[1], NULL);
    set_node(&logs[1], nodes[1]);
    OK(raftz_node_wait_for_leader(nodes[1], 60000, NULL, &failure));
    tally_wait(&logs[1].lines, before + 1);
    CHECK(tally_now(&logs[0].lines) == quiet);

    /* The data lives as long as somebody needs it. */
    raftz_config_free(configs[0]);
    CHECK(tally_now(&logs[0].destroyed) == 0);
    raftz_node_free(nodes[0]);
    CHECK(tally_now(&logs[0].destroyed) == 1);
    set_node(&logs[1], NULL);
    stop_and_free(nodes[1]);
    CHECK(tally_now(&logs[1].destroyed) == 0);
    /* Replaced: what was there ends. */
    OK(raftz_config_set_log(configs[1], RAFTZ_LOG_WARN, on_line, &logs[0], NULL, &failure));
    CHECK(tally_now(&logs[1].destroyed) == 1);
    /* Not taken: nothing ends. */
    WANT(RAFTZ_INVALID_ARG, raftz_config_set_log(configs[1], 6, on_line, &logs[0], on_destroy, &failure));
    WANT(RAFTZ_NULL_ARG, raftz_config_set_log(configs[1], 3, NULL, &logs[0], on_destroy, &failure));
    raftz_config_free(configs[1]);
    CHECK(tally_now(&logs[0].destroyed) == 1 && tally_now(&logs[1].destroyed) == 1);
    raftz_network_free(networks[0]);
    raftz_network_free(networks[1]);
    return 0;
}
