/* Clusters of three nodes in one process. */
#ifndef CLUSTER_H
#define CLUSTER_H

#include "check.h"

#define NODES 3

struct cluster {
    raftz_network *network;
    raftz_config *configs[NODES];
    raftz_node *nodes[NODES];
};

/* Long enough that a busy machine does not hold elections all the time. */
static inline unsigned election_ms(void) {
    return 500 * slowness();
}

static inline raftz_config *new_config(uint64_t id, unsigned members) {
    raftz_config *config = NULL;
    OK(raftz_config_new(id, "c1", &config, &failure));
    for (unsigned member = 1; member <= members; member++) {
        char address[32];
        snprintf(address, sizeof address, "127.0.0.1:%u", 7000 + member);
        OK(raftz_config_add_founder(config, member, address, &failure));
    }
    OK(raftz_config_set_number(config, "election_timeout_min_ms", election_ms(), &failure));
    OK(raftz_config_set_number(config, "election_timeout_max_ms", 2 * election_ms(), &failure));
    OK(raftz_config_set_number(config, "heartbeat_interval_ms", election_ms() / 5, &failure));
    OK(raftz_config_set_number(config, "propose_timeout_ms", 30000 * slowness(), &failure));
    return config;
}

static inline raftz_node *start_in(raftz_network *network, raftz_config *config,
                                   const raftz_machine *machine) {
    raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
    raftz_node *node = NULL;
    opts.network = network;
    OK(raftz_node_start(config, machine, &opts, &node, &failure));
    return node;
}

static inline void cluster_configure(struct cluster *cluster) {
    OK(raftz_network_new(&cluster->network, &failure));
    for (unsigned at = 0; at < NODES; at++) {
        cluster->configs[at] = new_config(at + 1, NODES);
    }
}

static inline void cluster_start(struct cluster *cluster, const raftz_machine *machine) {
    for (unsigned at = 0; at < NODES; at++) {
        cluster->nodes[at] = start_in(cluster->network, cluster->configs[at], machine);
    }
}

static inline raftz_state_info state_of(raftz_node *node) {
    raftz_state_info info = RAFTZ_STATE_INFO_INIT;
    raftz_state *state = NULL;
    OK(raftz_node_state(node, &state, &failure));
    OK(raftz_state_get(state, &info, &failure));
    raftz_state_free(state);
    /* They went with the state. */
    memset(&info.fault, 0, sizeof info.fault);
    memset(&info.listen_address, 0, sizeof info.listen_address);
    memset(&info.obstacles, 0, sizeof info.obstacles);
    return info;
}

/* Which of the nodes leads and is ready; waits until one does. */
static inline unsigned cluster_leader(struct cluster *cluster) {
    for (;;) {
        for (unsigned at = 0; at < NODES; at++) {
            if (cluster->nodes[at] != NULL) {
                raftz_state_info info = state_of(cluster->nodes[at]);
                if (info.role == RAFTZ_ROLE_LEADER && info.is_ready && !info.is_shut_down) {
                    return at;
                }
            }
        }
        moment();
    }
}

static inline void stop_and_free(raftz_node *node) {
    OK(raftz_node_stop(node, 60000, &failure));
    raftz_node_free(node);
}

static inline void cluster_end(struct cluster *cluster) {
    for (unsigned at = 0; at < NODES; at++) {
        if (cluster->nodes[at] != NULL) {
            stop_and_free(cluster->nodes[at]);
        }
        raftz_config_free(cluster->configs[at]);
    }
    raftz_network_free(cluster->network);
}

/* A command of the key-value store. */
static inline raftz_bytes *set_command(const char *key, const char *value) {
    raftz_bytes *command = NULL;
    OK(raftz_kv_set(raftz_text(key), raftz_text(value), &command, &failure));
    return command;
}

/* Proposes and waits until it is done, whatever elections come between. */
static inline raftz_reply propose_surely(raftz_node *node, raftz_slice command) {
    for (;;) {
        raftz_reply reply = RAFTZ_REPLY_INIT;
        raftz_status status = raftz_propose_wait(node, command, NULL, &reply, &failure);
        if (status == RAFTZ_OK) {
            return reply;
        }
        CHECK(raftz_error_is_retriable(failure) || raftz_error_is_outcome_unknown(failure));
        raftz_error_free(failure);
        failure = NULL;
    }
}

#endif
