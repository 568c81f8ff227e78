/* A node can be watched: numbers, text for Prometheus, and how it stands, as soon as that changes. */
#include "cluster.h"

static bool holds(raftz_bytes *text, const char *wanted) {
    raftz_slice slice = raftz_bytes_slice(text);
    size_t len = strlen(wanted);
    for (size_t at = 0; at + len <= slice.len; at++) {
        if (memcmp(slice.data + at, wanted, len) == 0) {
            return true;
        }
    }
    return false;
}

static raftz_metrics_info metrics_of(raftz_node *node) {
    raftz_metrics_info info = RAFTZ_METRICS_INFO_INIT;
    OK(raftz_metrics(node, &info, &failure));
    return info;
}

static void numbers(struct cluster *cluster, unsigned leader) {
    raftz_node *node = cluster->nodes[leader];
    for (unsigned at = 0; at < 10; at++) {
        raftz_reply reply = propose_surely(node, raftz_text("x"));
        raftz_bytes_free(reply.bytes);
    }
    raftz_metrics_info info = metrics_of(node);
    while (info.proposals_committed < 10 || info.applied_index < 11) {
        moment();
        info = metrics_of(node);
    }
    CHECK(info.size == sizeof info && info.node_id == leader + 1 && info.leader_id == leader + 1);
    CHECK(info.elections_won >= 1 && info.leader_changes >= 1 && info.term >= 1);
    CHECK(info.commit_index <= info.last_index && info.first_index == 1 && info.proposals_pending == 0);
    CHECK(info.propose.count >= 10 && info.propose.sum_us > 0 && info.propose.p50_us <= info.propose.p99_us);
    CHECK(info.commit.count > 0 && info.apply_batch.count > 0 && info.entries_written >= info.writes);
    CHECK(info.wal_bytes == 0 && info.wal_fsync.count == 0);

    unsigned other = (leader + 1) % NODES;
    raftz_peer_metrics_info peer = RAFTZ_PEER_METRICS_INFO_INIT;
    do {
        moment();
        OK(raftz_metrics_peer(node, other + 1, &peer, &failure));
    } while (peer.lag_entries > 0 || peer.rtt_us == 0);
    CHECK(peer.is_led == 1 && peer.node_id == other + 1 && peer.match_index >= 11);
    OK(raftz_metrics_peer(cluster->nodes[other], leader + 1, &peer, &failure));
    CHECK(peer.is_led == 0 && peer.match_index == 0 && peer.node_id == leader + 1);

    raftz_bytes *text = NULL;
    OK(raftz_metrics_text(node, &text, &failure));
    char wanted[64];
    snprintf(wanted, sizeof wanted, "raftz_is_leader{node=\"%u\",group=\"1\"} 1", leader + 1);
    CHECK(holds(text, wanted) && holds(text, "raftz_propose_seconds_bucket{") && holds(text, "# EOF"));
    raftz_bytes_free(text);
}

struct refused {
    raftz_node *node;
    struct tally done;
};

/* Waiting in a callback would hold the node up; looking does not. */
static void inside(void *user_data, const raftz_outcome *outcome) {
    struct refused *refused = user_data;
    raftz_standing_info info = RAFTZ_STANDING_INFO_INIT;
    (void)outcome;
    OK(raftz_watch_wait(refused->node, 0, 0, &info, &failure));
    CHECK(raftz_watch_wait(refused->node, 0, 1000, &info, NULL) == RAFTZ_IN_CALLBACK);
    CHECK(raftz_watch_wait(refused->node, UINT64_MAX, 0, &info, NULL) == RAFTZ_EMPTY);
    tally_add(&refused->done, 1);
}

int main(void) {
    watchdog(120);
    struct cluster cluster;
    cluster_configure(&cluster);
    cluster_start(&cluster, NULL);

    /* Every change is seen, or a later one. */
    raftz_standing_info standing = RAFTZ_STANDING_INFO_INIT;
    uint64_t version = 0;
    do {
        OK(raftz_watch_wait(cluster.nodes[0], version, 60000, &standing, &failure));
        CHECK(standing.version > version && standing.node_id == 1);
        version = standing.version;
    } while (standing.leader_id == 0 || standing.connected_count < NODES - 1);
    CHECK(standing.is_storage_full == 0 && standing.is_faulted == 0 && standing.is_shut_down == 0);
    CHECK(standing.snapshot_count == 0 && standing.snapshot_phase == 0);
    unsigned leader = cluster_leader(&cluster);
    numbers(&cluster, leader);

    static struct refused refused = {NULL, TALLY_INIT};
    refused.node = cluster.nodes[leader];
    OK(raftz_propose(refused.node, raftz_text("y"), NULL, inside, &refused, &failure));
    tally_wait(&refused.done, 1);

    OK(raftz_node_stop(cluster.nodes[0], 60000, &failure));
    do {
        OK(raftz_watch_wait(cluster.nodes[0], version, 60000, &standing, &failure));
        version = standing.version;
    } while (!standing.is_shut_down);
    CHECK(standing.leader_id == 0 && standing.is_ready == 0);
    WANT(RAFTZ_SHUT_DOWN, raftz_watch_wait(cluster.nodes[0], version, RAFTZ_WAIT_FOREVER, &standing, &failure));
    cluster_end(&cluster);
    return 0;
}
