/* Signals belong to the host program: the library's threads block them all, and no peer that resets its
 * connection ends a process that never thought of SIGPIPE. */
#include "cluster.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>

#define RESETS 1000

static struct sockaddr_in addresses[NODES];

static int listening(struct sockaddr_in *address) {
    socklen_t len = sizeof *address;
    int fd = socket(AF_INET, SOCK_STREAM, 0), again = 1;
    memset(address, 0, sizeof *address);
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    /* So that the node can have the port again when it comes back. */
    CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &again, sizeof again) == 0);
    CHECK(bind(fd, (struct sockaddr *)address, sizeof *address) == 0);
    CHECK(listen(fd, 128) == 0 && getsockname(fd, (struct sockaddr *)address, &len) == 0);
    return fd;
}

/* Every signal that a thread can block. */
static uint64_t blockable(void) {
    uint64_t mask = 0;
    sigset_t all;
    sigfillset(&all);
    for (int number = 1; number <= 64; number++) {
        if (sigismember(&all, number) == 1 && number != SIGKILL && number != SIGSTOP) {
            mask |= 1ull << (number - 1);
        }
    }
    return mask;
}

static void read_status(const char *task, char *name, uint64_t *blocked) {
    char path[300], line[512];
    snprintf(path, sizeof path, "/proc/self/task/%s/status", task);
    FILE *file = fopen(path, "r");
    *blocked = 0;
    name[0] = '\0';
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "Name: %31s", name);
        if (strncmp(line, "SigBlk:", 7) == 0) {
            *blocked = strtoull(line + 7, NULL, 16);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

static void all_blocked(void) {
    DIR *tasks = opendir("/proc/self/task");
    unsigned seen = 0;
    CHECK(tasks != NULL);
    for (struct dirent *task = readdir(tasks); task != NULL; task = readdir(tasks)) {
        char name[32];
        uint64_t blocked;
        if (task->d_name[0] == '.') {
            continue;
        }
        read_status(task->d_name, name, &blocked);
        if (strncmp(name, "raftz-", 6) == 0) {
            CHECK((blocked & blockable()) == blockable());
            seen++;
        } else if (name[0] != '\0') {
            CHECK(blocked == 0);
        }
    }
    closedir(tasks);
    CHECK(seen >= 2 * NODES);
}

static void reset(const struct sockaddr_in *address, unsigned number) {
    struct linger at_once = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once) == 0);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 && number % 2 == 0) {
        /* Something to answer, or not. */
        ssize_t sent = send(fd, "raftz, or something like it", number % 27, MSG_NOSIGNAL);
        (void)sent;
        if (number % 50 == 0) {
            moment();
        }
    }
    close(fd);
}

static void *reset_all(void *argument) {
    for (unsigned number = 0; number < RESETS; number++) {
        reset(&addresses[number % NODES], number);
    }
    atomic_store((_Atomic bool *)argument, true);
    return NULL;
}

static void on_done(void *user_data, const raftz_outcome *outcome) {
    CHECK(outcome != NULL);
    tally_add(user_data, 1);
}

static raftz_node *start_tcp(raftz_config *config, int fd) {
    raftz_start_opts opts = RAFTZ_START_OPTS_INIT;
    raftz_node *node = NULL;
    opts.listen_fd = fd;
    OK(raftz_node_start(config, NULL, &opts, &node, &failure));
    return node;
}

int main(int count, char **arguments) {
    watchdog(120);
    CHECK(count == 2);
    signal(SIGPIPE, SIG_DFL);
    struct cluster cluster = {0};
    int fds[NODES];
    for (unsigned at = 0; at < NODES; at++) {
        fds[at] = listening(&addresses[at]);
    }
    for (unsigned at = 0; at < NODES; at++) {
        char text[4096];
        cluster.configs[at] = new_config(at + 1, 0);
        for (unsigned member = 0; member < NODES; member++) {
            snprintf(text, sizeof text, "127.0.0.1:%u", ntohs(addresses[member].sin_port));
            OK(raftz_config_add_founder(cluster.configs[at], member + 1, text, &failure));
            if (member == at) {
                OK(raftz_config_set_listen_address(cluster.configs[at], text, &failure));
            }
        }
        snprintf(text, sizeof text, "%s/signals-%u", arguments[1], at);
        OK(raftz_config_set_directory(cluster.configs[at], text, &failure));
        OK(raftz_node_bootstrap(cluster.configs[at], &failure));
        cluster.nodes[at] = start_tcp(cluster.configs[at], fds[at]);
    }
    unsigned leader = cluster_leader(&cluster);
    all_blocked();

    static _Atomic bool is_over = false;
    struct tally ended = TALLY_INIT;
    uint64_t accepted = 0;
    pthread_t resetting;
    char value[4096];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = '\0';
    raftz_bytes *command = set_command("k", value);
    CHECK(pthread_create(&resetting, NULL, reset_all, &is_over) == 0);
    /* A follower goes while the leader writes to it, and comes back. */
    for (unsigned round = 0; round < 5 || !atomic_load(&is_over); round++) {
        for (unsigned call = 0; call < 200; call++) {
            accepted += raftz_propose(cluster.nodes[leader], raftz_bytes_slice(command), NULL, on_done,
                                      &ended, NULL) == RAFTZ_OK;
        }
        if (round < 5) {
            unsigned follower = (leader + 1 + round % 2) % NODES;
            stop_and_free(cluster.nodes[follower]);
            cluster.nodes[follower] = start_tcp(cluster.configs[follower], 0);
        }
        tally_wait(&ended, accepted);
        leader = cluster_leader(&cluster);
    }
    pthread_join(resetting, NULL);
    raftz_reply reply = propose_surely(cluster.nodes[leader], raftz_bytes_slice(command));
    CHECK(reply.index > 200);
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    all_blocked();
    struct sigaction action;
    CHECK(sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    cluster_end(&cluster);
    return 0;
}
