/*
 * A transport of one's own: nodes that talk over Unix sockets, in place of TCP.
 *
 * A transport sets up links and carries messages, which are bytes to it; custom_transport_unix.c has all of it. This
 * program has three nodes, each with its log on disk: one in a process of its own, which leads, and two in this one. The
 * leader's process is killed in the middle of its writes, and another node takes over: no write that was acknowledged may
 * be missing. Meanwhile the log has been shortened, so that the killed node, started again, is brought back by a snapshot,
 * over the same sockets; in the end all three must have the same.
 *
 *     cc custom_transport*.c $(pkg-config --cflags --libs raftz) -lpthread -o custom_transport && ./custom_transport
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"
#include "custom_transport.h"

enum { WRITES = 200, LARGE_BYTES = 200 * 1000, PATH_BYTES = 4096 };

/* What the process of the first node tells, each time whole. */
typedef struct report_line {
    /* The last write that was acknowledged; in its second life, how many keys it has. */
    uint64_t count;
    uint64_t digest;
    /* It leads; in its second life, it came back by a snapshot. */
    bool is_so;
} report_line;

/* A node and what it needs for as long as it runs. */
typedef struct member {
    char folder[PATH_BYTES];
    char name[16];
    unix_place place;
    raftz_queue *events;
    raftz_node *node;
} member;

static bool configure(raftz_config *config, member *self, uint64_t id) {
    raftz_error *error = NULL;
    char directory[PATH_BYTES + 32];
    bool is_formatted = false;
    snprintf(self->name, sizeof self->name, "node-%" PRIu64, id);
    self->place = (unix_place){self->folder, self->name};
    snprintf(directory, sizeof directory, "%s/data-%" PRIu64, self->folder, id);
    const raftz_transport transport = unix_sockets(&self->place);
    for (uint64_t founder = 1; founder <= NODES; founder++) {
        char address[32];
        snprintf(address, sizeof address, "node-%" PRIu64 ":1", founder);
        if (!ok("founder", raftz_config_add_founder(config, founder, address, &error), &error)) {
            return false;
        }
    }
    return ok("transport", raftz_config_set_transport(config, &transport, &error), &error) &&
           ok("directory", raftz_config_set_directory(config, directory, &error), &error) &&
           /* The first node is preferred as leader, and logs begin behind the newest snapshot. */
           ok("priority", raftz_config_set(config, "election_priority", id == 1 ? "100" : "50", &error),
              &error) &&
           ok("retain", raftz_config_set(config, "snapshot_retain_bytes", "0", &error), &error) &&
           ok("events",
              raftz_config_set_event_queue(config, 1u << RAFTZ_EVENT_SNAPSHOT, self->events, &error),
              &error) &&
           ok("formatted", raftz_node_is_formatted(config, &is_formatted, &error), &error) &&
           (is_formatted || ok("found", raftz_node_bootstrap(config, &error), &error));
}

/* If that fails member_end() is due all the same. */
static bool member_start(member *self, const char *folder, uint64_t id) {
    raftz_error *error = NULL;
    raftz_config *config = NULL;
    snprintf(self->folder, sizeof self->folder, "%s", folder);
    const bool is_started =
        ok("queue", raftz_queue_new(NULL, &self->events, &error), &error) &&
        ok("config", raftz_config_new(id, "5eed", &config, &error), &error) &&
        configure(config, self, id) &&
        ok("start", raftz_node_start(config, NULL, NULL, &self->node, &error), &error);
    raftz_config_free(config);
    return is_started;
}

static bool member_end(member *self) {
    const bool is_stopped = node_end(&self->node);
    raftz_queue_free(self->events);
    self->events = NULL;
    return is_stopped;
}

/* What is written under a number: now and then something large. */
static void value_of(uint64_t number, char *value) {
    const size_t len = number % 20 == 0 ? LARGE_BYTES : 4;
    memset(value, (int)('a' + number % 26), len);
    value[len] = '\0';
}

/* Writes until it is done: a key only ever gets one value, so that twice is as good as once. */
static bool set(raftz_node *node, uint64_t number, uint64_t *index) {
    static char value[LARGE_BYTES + 1];
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    char key[32];
    const uint64_t until = now_ms() + PATIENCE_MS;
    snprintf(key, sizeof key, "key-%" PRIu64, number);
    value_of(number, value);
    if (!ok(key, raftz_kv_set(raftz_text(key), raftz_text(value), &command, &error), &error)) {
        return false;
    }
    raftz_status status;
    bool goes_on;
    do {
        status = raftz_propose_wait(node, raftz_bytes_slice(command), NULL, &reply, &error);
        goes_on = status != RAFTZ_OK && now_ms() < until &&
                  (raftz_error_is_retriable(error) || raftz_error_is_outcome_unknown(error));
        if (goes_on) {
            raftz_error_free(error);
            error = NULL;
        }
    } while (goes_on);
    const bool is_done = ok(key, status, &error);
    *index = reply.index;
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return is_done;
}

static bool leads(const raftz_node *node) {
    raftz_error *error = NULL;
    raftz_state *state = NULL;
    raftz_state_info info = RAFTZ_STATE_INFO_INIT;
    const bool does = ok("state", raftz_node_state(node, &state, &error), &error) &&
                      ok("state", raftz_state_get(state, &info, &error), &error) &&
                      info.role == RAFTZ_ROLE_LEADER && info.is_ready;
    raftz_state_free(state);
    return does;
}

static bool tell(const report_line *line) {
    return write(STDOUT_FILENO, line, sizeof *line) == sizeof *line;
}

/* The first node's first life: it leads, and writes until it is killed. */
static int write_until_killed(const char *folder) {
    member self = {0};
    report_line line = {0, 0, false};
    uint64_t index = 0;
    bool goes_on = member_start(&self, folder, 1);
    const uint64_t until = now_ms() + PATIENCE_MS;
    while (goes_on && !leads(self.node)) {
        pause_ms(10);
        goes_on = now_ms() < until;
    }
    while (goes_on) {
        goes_on = set(self.node, line.count + 1, &index);
        line.count += goes_on ? 1 : 0;
        line.is_so = leads(self.node);
        goes_on = goes_on && tell(&line);
    }
    member_end(&self);
    return EXIT_FAILURE;
}

/* Whether a snapshot was installed, as the node told. */
static bool came_by_snapshot(const member *self) {
    raftz_error *error = NULL;
    raftz_event *event = NULL;
    bool it_did = false;
    while (raftz_queue_next(self->events, 0, &event, &error) == RAFTZ_OK) {
        raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
        it_did = it_did || (ok("event", raftz_event_get(event, &info, &error), &error) &&
                            info.phase == RAFTZ_SNAPSHOT_INSTALLED);
        raftz_event_free(event);
    }
    raftz_error_free(error);
    return it_did;
}

/* Its second life: it catches up, and tells what it has. */
static int come_back(const char *folder, uint64_t index) {
    member self = {0};
    report_line line = {0, 0, false};
    bool is_back = member_start(&self, folder, 1) &&
                   kv_digest(self.node, index, &line.count, &line.digest);
    line.is_so = is_back && came_by_snapshot(&self);
    is_back = is_back && tell(&line);
    return member_end(&self) && is_back ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Starts the first node in a process of its own; `from` is where it tells. */
static pid_t spawn(const char *folder, const char *index, int *from) {
    extern char **environ;
    int ends[2];
    pid_t child = -1;
    posix_spawn_file_actions_t actions;
    char program[] = "/proc/self/exe", *arguments[] = {(char *)"custom_transport", strdup(folder),
                                                       strdup(index), NULL};
    if (pipe2(ends, O_CLOEXEC) != 0) {
        perror("pipe");
    } else {
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        errno = posix_spawn(&child, program, &actions, NULL, arguments, environ);
        if (errno != 0) {
            perror(program);
            child = -1;
        }
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        *from = ends[0];
    }
    free(arguments[1]);
    free(arguments[2]);
    return child;
}

/* Kills the leader once it has written enough. How many writes were acknowledged; 0 if it did not come to that. */
static uint64_t kill_the_leader(pid_t child, int from) {
    report_line line = {0, 0, false};
    uint64_t last = 0;
    bool is_killed = false;
    while (read(from, &line, sizeof line) == sizeof line) {
        last = line.count;
        if (last >= WRITES && line.is_so && !is_killed) {
            is_killed = kill(child, SIGKILL) == 0;
        }
    }
    int status = 0;
    const bool was_killed = waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
                            WTERMSIG(status) == SIGKILL;
    return was_killed && is_killed ? last : 0;
}

/* Every node here has every key up to `last`. */
static bool holds_all(member *members, uint64_t last, uint64_t index) {
    static char value[LARGE_BYTES + 1];
    for (int at = 1; at < NODES; at++) {
        for (uint64_t number = 1; number <= last; number++) {
            char key[32];
            snprintf(key, sizeof key, "key-%" PRIu64, number);
            value_of(number, value);
            if (kv_find(members[at].node, index, key, value) != KV_EQUAL) {
                fprintf(stderr, "node %d lost %s\n", at + 1, key);
                return false;
            }
        }
    }
    return true;
}

/* The rest of it, with two nodes in this process. */
static bool demonstrate(const char *folder, member *members, pid_t *child, int *from) {
    raftz_error *error = NULL;
    uint64_t index = 0;
    for (int at = 1; at < NODES; at++) {
        if (!member_start(&members[at], folder, (uint64_t)at + 1)) {
            return false;
        }
    }
    uint64_t last = kill_the_leader(*child, *from);
    *child = -1;
    if (last == 0) {
        fprintf(stderr, "the leader was not killed while it led\n");
        return false;
    }
    const uint64_t killed_ms = now_ms();
    /* The first one that it cannot have written: one may have been under way. */
    uint64_t number = last + 2;
    if (!set(members[1].node, number, &index) || !set(members[1].node, last + 1, &index)) {
        return false;
    }
    printf("leader killed after %" PRIu64 " acknowledged writes; another one leads %" PRIu64 " ms later\n",
           last, now_ms() - killed_ms);
    for (; number <= last + WRITES; number++) {
        if (!set(members[1 + number % 2].node, number, &index)) {
            return false;
        }
    }
    last = number - 1;
    if (!holds_all(members, last, index)) {
        return false;
    }
    for (int at = 1; at < NODES; at++) {
        if (!ok("snapshot", raftz_node_snapshot(members[at].node, PATIENCE_MS, NULL, &error), &error)) {
            return false;
        }
    }
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, index);
    close(*from);
    *child = spawn(folder, text, from);
    report_line line = {0, 0, false};
    const bool told = *child > 0 && read(*from, &line, sizeof line) == sizeof line;
    int status = 1;
    const bool is_back = *child > 0 && waitpid(*child, &status, 0) == *child && status == 0 && told;
    *child = -1;
    if (!is_back || !line.is_so) {
        fprintf(stderr, "the killed node did not come back by a snapshot\n");
        return false;
    }
    for (int at = 1; at < NODES; at++) {
        uint64_t keys = 0, digest = 0;
        if (!kv_digest(members[at].node, index, &keys, &digest) || keys != last ||
            keys != line.count || digest != line.digest) {
            fprintf(stderr, "node %d has another state than the first\n", at + 1);
            return false;
        }
    }
    printf("it came back by a snapshot; %" PRIu64 " keys on each of %d nodes, digest %016" PRIx64 "\n",
           last, NODES, line.digest);
    return true;
}

int main(int argc, char **argv) {
    if (argc == 3) {
        const uint64_t index = strtoull(argv[2], NULL, 10);
        return index == 0 ? write_until_killed(argv[1]) : come_back(argv[1], index);
    }
    char *folder = scratch_new("custom-transport");
    if (folder == NULL) {
        return EXIT_FAILURE;
    }
    static member members[NODES];
    int from = -1;
    pid_t child = spawn(folder, "0", &from);
    bool as_claimed = child > 0 && demonstrate(folder, members, &child, &from);
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    for (int at = 0; at < NODES; at++) {
        as_claimed = member_end(&members[at]) && as_claimed;
    }
    close(from);
    return report("custom_transport", scratch_remove(folder) && as_claimed);
}
