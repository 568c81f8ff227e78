/* A child of a process with nodes: it is refused everything, nothing hangs in it, and the parent goes on.
 * Nodes of its own it has only after an exec: locks keep lists of threads that wait, and here all but one of
 * them are gone. */
#include "cluster.h"

#include <sys/wait.h>

static void on_done(void *user_data, const raftz_outcome *outcome) {
    (void)outcome;
    tally_add(user_data, 1);
}

static void on_batch(void *user_data, const raftz_outcome *outcomes, size_t count) {
    (void)outcomes, (void)count;
    tally_add(user_data, 1);
}

static void count_free(void *context) {
    tally_add(context, 1);
}

static void in_child(raftz_node *node, raftz_queue *queue, raftz_config *config, raftz_slice command) {
    struct tally told = TALLY_INIT, freed = TALLY_INIT;
    raftz_read_opts read = RAFTZ_READ_OPTS_INIT;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    raftz_event *event = NULL;
    raftz_state *state = NULL;
    raftz_bytes *bytes = NULL;
    uint64_t leader_id = 77;
    /* A child has no alarm of its parent's. */
    watchdog(30);
    read.level = RAFTZ_READ_STALE;
#define REFUSED(call) WANT(RAFTZ_FORKED, call)
    REFUSED(raftz_propose(node, command, NULL, on_done, &told, &failure));
    REFUSED(raftz_propose_batch(node, &command, 1, NULL, on_batch, &told, &failure));
    REFUSED(raftz_propose_batch(node, NULL, 0, NULL, on_batch, &told, &failure));
    REFUSED(raftz_propose_queued(node, &command, 1, NULL, queue, &told, &failure));
    REFUSED(raftz_propose_wait(node, command, NULL, &reply, &failure));
    OK(raftz_bytes_wrap(command, count_free, &freed, &bytes, &failure));
    REFUSED(raftz_propose_bytes(node, bytes, NULL, on_done, &told, &failure));
    CHECK(tally_now(&freed) == 1);
    REFUSED(raftz_read(node, command, &read, on_done, &told, &failure));
    REFUSED(raftz_read_queued(node, command, &read, queue, &told, &failure));
    REFUSED(raftz_read_wait(node, command, &read, &reply, &failure));
    REFUSED(raftz_node_state(node, &state, &failure));
    REFUSED(raftz_node_stop(node, 10, &failure));
    REFUSED(raftz_node_listen_address(node, &bytes, &failure));
    REFUSED(raftz_node_wait_for_leader(node, 10, &leader_id, &failure));
    REFUSED(raftz_node_wait_for_applied(node, 1, 10, &failure));
    REFUSED(raftz_node_snapshot(node, 10, &leader_id, &failure));
    REFUSED(raftz_node_campaign(node, &failure));
    REFUSED(raftz_transfer_leadership(node, 0, 10, on_done, &told, &failure));
    REFUSED(raftz_transfer_leadership_queued(node, 0, 10, queue, &told, &failure));
    REFUSED(raftz_transfer_leadership_wait(node, 0, 10, &leader_id, &failure));
    REFUSED(raftz_step_down(node, 10, on_done, &told, &failure));
    REFUSED(raftz_step_down_queued(node, 10, queue, &told, &failure));
    REFUSED(raftz_step_down_wait(node, 10, &leader_id, &failure));
    REFUSED(raftz_queue_next(queue, 0, &event, &failure));
    REFUSED(raftz_queue_next(queue, RAFTZ_WAIT_FOREVER, &event, &failure));
    REFUSED(raftz_config_set_event_queue(config, RAFTZ_EVENTS_ALL, queue, &failure));
    raftz_node *mine = NULL;
    raftz_config *own = new_config(1, 1);
    REFUSED(raftz_node_start(config, NULL, NULL, &mine, &failure));
    REFUSED(raftz_node_start(own, NULL, NULL, &mine, &failure));
    CHECK(mine == NULL);
    CHECK(raftz_node_id(node) == 0 && raftz_queue_fd(queue) == -1 && raftz_queue_dropped(queue) == 0);
    CHECK(leader_id == 77 && event == NULL && state == NULL && reply.bytes == NULL);
    CHECK(tally_now(&told) == 0);
    raftz_node_free(node);
    REFUSED(raftz_node_start(own, NULL, NULL, &mine, &failure));
    raftz_config_free(own);
    raftz_queue_free(queue);
    raftz_config_free(config);
    _exit(0);
}

/* Of a process that has no nodes any more. */
static void in_later_child(void) {
    watchdog(30);
    raftz_network *network = NULL;
    raftz_config *config = new_config(1, 1);
    OK(raftz_network_new(&network, &failure));
    raftz_node *node = start_in(network, config, NULL);
    OK(raftz_node_wait_for_leader(node, 20000, NULL, &failure));
    stop_and_free(node);
    raftz_config_free(config);
    raftz_network_free(network);
    _exit(0);
}

struct caller {
    raftz_node *node;
    raftz_slice command;
    struct tally *told;
    _Atomic bool is_over;
};

/* Keeps the node's locks and the allocator busy, so that forks fall into them. */
static void *keep_busy(void *argument) {
    struct caller *caller = argument;
    uint64_t accepted = 0;
    while (!caller->is_over) {
        raftz_status status =
            raftz_propose(caller->node, caller->command, NULL, on_done, caller->told, NULL);
        accepted += status == RAFTZ_OK;
        tally_wait(caller->told, accepted > 100 ? accepted - 100 : 0);
    }
    tally_wait(caller->told, accepted);
    return NULL;
}

int main(void) {
    watchdog(120);
    struct tally told = TALLY_INIT;
    raftz_network *network = NULL;
    raftz_queue *queue = NULL;
    raftz_config *config = new_config(1, 1);
    OK(raftz_network_new(&network, &failure));
    OK(raftz_queue_new(NULL, &queue, &failure));
    OK(raftz_config_set_event_queue(config, RAFTZ_EVENTS_ALL, queue, &failure));
    raftz_node *node = start_in(network, config, NULL);
    OK(raftz_node_wait_for_leader(node, 60000, NULL, &failure));
    raftz_bytes *command = set_command("k", "v");
    raftz_slice slice = raftz_bytes_slice(command);
    struct caller caller = {node, slice, &told, false};
    pthread_t busy;
    CHECK(pthread_create(&busy, NULL, keep_busy, &caller) == 0);
    for (unsigned child = 0; child < 10; child++) {
        tally_wait(&told, tally_now(&told) + 10);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            in_child(node, queue, config, slice);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    caller.is_over = true;
    pthread_join(busy, NULL);
    raftz_reply reply = propose_surely(node, slice);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    CHECK(raftz_queue_fd(queue) >= 0 && raftz_node_id(node) == 1);
    stop_and_free(node);
    raftz_queue_free(queue);
    raftz_config_free(config);
    raftz_network_free(network);
    pid_t later = fork();
    if (later == 0) {
        in_later_child();
    }
    int status = 0;
    CHECK(later > 0 && waitpid(later, &status, 0) == later && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
