/*
 * Three processes over TCP with their logs on disk. The leader's process is killed while all three
 * write, another takes over; all are killed, all are started again; and everything that was ever
 * acknowledged is read back from each of them and compared.
 *
 *     cluster [writes]
 *
 * One program plays both parts. Started by a person it is the parent, which starts itself three
 * times, kills, and keeps the ledger; it makes no call of raftz, for a library with threads is not
 * to be forked. A child is one node and one writer. They speak lines: orders go to a child's
 * standard input, reports come from its standard output. If the parent dies, that input ends and
 * the children do.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common.h"

enum {
    WRITES = 3000,
    /* Writes that a child has on the way at once. */
    BATCH = 16,
    /* Keys asked for at once when a store is read back. */
    PAGE = 500,
    LINE_BYTES = 256,
    WAIT_MS = 2 * PATIENCE_MS
};

/* The writes: each node's writer has a sequence of keys of its own. */
static void pair(char *key, char *value, int node, uint64_t number) {
    snprintf(key, LINE_BYTES, "%d/%09" PRIu64, node, number);
    snprintf(value, LINE_BYTES, "value-%" PRIu64 "-of-node-%d", number * 2654435761u, node);
}

/* ---- The child ------------------------------------------------------------------------------ */

typedef struct child {
    int id;
    const char *root;
    /* Where the writer begins: all before was acknowledged. */
    uint64_t from;
    char **addresses;
    /* For the test of the test: hides one key when the store is read back. */
    bool is_liar;
    raftz_node *node;
    /* Where the writer's proposals end. */
    raftz_queue *queue;
} child;

/* Tells the parent a line: whole, in one write, since several threads tell. */
static void tell(const char *format, ...) {
    char line[2 * LINE_BYTES];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 1, format, values);
    va_end(values);
    if (length > (int)sizeof line - 2) {
        length = (int)sizeof line - 2;
    }
    line[length] = '\n';
    /* Nobody to tell means that the parent is gone, which the end of the orders says too. */
    (void)!write(STDOUT_FILENO, line, (size_t)length + 1);
}

/* As ok(), to the parent. */
static bool told(raftz_status status, raftz_error **error) {
    if (status != RAFTZ_OK) {
        tell("fatal %s: %s", raftz_status_name(status), raftz_error_message(*error));
        raftz_error_free(*error);
        *error = NULL;
    }
    return status == RAFTZ_OK;
}

static void on_event(void *user_data, const raftz_event_info *event) {
    (void)user_data;
    if (event->kind == RAFTZ_EVENT_FAULTED) {
        tell("fatal %.*s", (int)event->text.len, (const char *)event->text.data);
    } else if (event->role == RAFTZ_ROLE_LEADER) {
        tell("leads %" PRIu64, event->term);
    } else {
        tell("follows %" PRIu64, event->term);
    }
}

static bool child_start(child *self) {
    raftz_error *error = NULL;
    raftz_config *config = NULL;
    bool is_formatted = false;
    char directory[4096];
    const uint64_t kinds = 1u << RAFTZ_EVENT_ROLE | 1u << RAFTZ_EVENT_FAULTED;
    snprintf(directory, sizeof directory, "%s/node-%d", self->root, self->id);
    bool started =
        told(raftz_config_new((uint64_t)self->id, "c1a5", &config, &error), &error) &&
        told(raftz_config_set_directory(config, directory, &error), &error) &&
        told(raftz_config_set_listen_address(config, self->addresses[self->id - 1], &error),
             &error) &&
        told(raftz_config_set_event_callback(config, kinds, on_event, NULL, NULL, &error), &error);
    for (int id = 1; id <= NODES && started; id++) {
        const char *address = self->addresses[id - 1];
        started = told(raftz_config_add_founder(config, (uint64_t)id, address, &error), &error);
    }
    started = started && told(raftz_node_is_formatted(config, &is_formatted, &error), &error) &&
              (is_formatted || told(raftz_node_bootstrap(config, &error), &error)) &&
              told(raftz_queue_new(NULL, &self->queue, &error), &error) &&
              told(raftz_node_start(config, NULL, NULL, &self->node, &error), &error);
    raftz_config_free(config);
    return started;
}

/* Proposes commands and takes those out that are done. What was refused is certainly not in the
 * log. What is unknown may be, but giving a key the same value twice is as good as once: so the
 * rest may all be tried again. */
static bool propose(child *self, raftz_bytes **commands, size_t *count, raftz_outcome *last) {
    raftz_error *error = NULL;
    raftz_event *event = NULL;
    raftz_event_info info = RAFTZ_EVENT_INFO_INIT;
    raftz_slice slices[BATCH];
    for (size_t at = 0; at < *count; at++) {
        slices[at] = raftz_bytes_slice(commands[at]);
    }
    const raftz_status status =
        raftz_propose_queued(self->node, slices, *count, NULL, self->queue, NULL, &error);
    if (status != RAFTZ_OK && raftz_error_is_retriable(error)) {
        raftz_error_free(error);
        return true;
    }
    /* A call ends by its deadline, be it with an unknown outcome. */
    if (!told(status, &error) ||
        !told(raftz_queue_next(self->queue, WAIT_MS, &event, &error), &error) ||
        !told(raftz_event_get(event, &info, &error), &error)) {
        raftz_event_free(event);
        return false;
    }
    size_t left = 0;
    bool is_right = true;
    for (size_t at = 0; at < info.outcome_count; at++) {
        const raftz_outcome *outcome = &info.outcomes[at];
        if (outcome->status != RAFTZ_OK) {
            commands[left++] = commands[at];
            continue;
        }
        is_right = is_right && (outcome->flags & RAFTZ_OUTCOME_REJECTED) == 0;
        last->index = outcome->index > last->index ? outcome->index : last->index;
        last->term = outcome->term > last->term ? outcome->term : last->term;
        raftz_bytes_free(commands[at]);
    }
    *count = left;
    raftz_event_free(event);
    if (!is_right) {
        tell("fatal a set was rejected");
    }
    return is_right;
}

/* Writes until the process is killed, and tells each batch once all of it is acknowledged. */
static void *writer_main(void *argument) {
    child *self = argument;
    for (uint64_t next = self->from;; next += BATCH) {
        raftz_error *error = NULL;
        raftz_bytes *commands[BATCH];
        raftz_outcome last = {.index = 0};
        size_t count = 0;
        bool goes_on = true;
        for (; count < BATCH && goes_on; count += goes_on) {
            char key[LINE_BYTES], value[LINE_BYTES];
            pair(key, value, self->id, next + count);
            goes_on = told(raftz_kv_set(raftz_text(key), raftz_text(value), &commands[count],
                                        &error),
                           &error);
        }
        while (count > 0 && goes_on) {
            goes_on = propose(self, commands, &count, &last);
            if (count > 0) {
                pause_ms(5);
            }
        }
        if (!goes_on) {
            while (count > 0) {
                raftz_bytes_free(commands[--count]);
            }
            return NULL;
        }
        tell("acked %" PRIu64 " %" PRIu64, next + BATCH, last.term);
    }
}

/* One more write. When it is done, all that any dead leader has left in the log is before it. */
static bool child_mark(child *self) {
    const uint64_t deadline = now_ms() + PATIENCE_MS;
    raftz_error *error = NULL;
    raftz_bytes *command = NULL;
    raftz_reply reply = RAFTZ_REPLY_INIT;
    if (!told(raftz_kv_set(raftz_text("mark"), raftz_text("set"), &command, &error), &error)) {
        return false;
    }
    raftz_status status = RAFTZ_NO_LEADER;
    do {
        raftz_error_free(error);
        error = NULL;
        status = raftz_propose_wait(self->node, raftz_bytes_slice(command), NULL, &reply, &error);
    } while (status != RAFTZ_OK && now_ms() < deadline);
    if (told(status, &error)) {
        tell("marked %" PRIu64, reply.index);
    }
    raftz_bytes_free(reply.bytes);
    raftz_bytes_free(command);
    return status == RAFTZ_OK;
}

/* Tells a page of the node's own store; `last` is the key before it and becomes its last. */
static bool child_page(child *self, uint64_t index, char *last, bool *more) {
    raftz_error *error = NULL;
    raftz_bytes *request = NULL;
    raftz_kv_reply *answer = NULL;
    raftz_kv_reply_info info = RAFTZ_KV_REPLY_INFO_INIT;
    raftz_slice key = {NULL, 0}, value = {NULL, 0};
    const raftz_slice after = raftz_text(last);
    bool read = told(raftz_kv_scan(raftz_text(""), after.len > 0 ? &after : NULL, PAGE, &request,
                                   &error),
                     &error) &&
                kv_ask(self->node, index, request, &answer, &info);
    for (size_t at = 0; read && at < info.count; at++) {
        read = told(raftz_kv_reply_entry(answer, at, &key, &value, &error), &error) &&
               key.len < LINE_BYTES;
        if (read && !(self->is_liar && after.len == 0 && at == 6)) {
            tell("pair %.*s %.*s", (int)key.len, (const char *)key.data, (int)value.len,
                 (const char *)value.data);
        }
    }
    if (read && info.count > 0) {
        memcpy(last, key.data, key.len);
        last[key.len] = '\0';
    }
    *more = info.is_on != 0;
    raftz_kv_reply_free(answer);
    return read;
}

static bool child_dump(child *self, uint64_t index) {
    char last[LINE_BYTES] = "";
    uint64_t keys = 0, digest = 0;
    for (bool more = true; more;) {
        if (!child_page(self, index, last, &more)) {
            return false;
        }
    }
    if (!kv_digest(self->node, index, &keys, &digest)) {
        return false;
    }
    tell("store %" PRIu64 " %016" PRIx64, keys, digest);
    return true;
}

/* Does as it is ordered, until it is told to stop or nobody is there any more to tell it. */
static int child_main(char **arguments) {
    child self = {.id = atoi(arguments[0]),
                  .root = arguments[1],
                  .from = strtoull(arguments[2], NULL, 10),
                  .is_liar = strcmp(arguments[3], "lie") == 0,
                  .addresses = &arguments[4]};
    pthread_t writer;
    char order[LINE_BYTES];
    bool goes_on = child_start(&self), is_writing = false, was_stopped = false;
    if (goes_on) {
        tell("ready");
    }
    while (goes_on && !was_stopped && fgets(order, sizeof order, stdin) != NULL) {
        uint64_t index = 0;
        if (strcmp(order, "write\n") == 0) {
            is_writing = goes_on = pthread_create(&writer, NULL, writer_main, &self) == 0;
        } else if (strcmp(order, "mark\n") == 0) {
            goes_on = child_mark(&self);
        } else if (sscanf(order, "dump %" SCNu64, &index) == 1) {
            goes_on = child_dump(&self, index);
        } else {
            was_stopped = strcmp(order, "stop\n") == 0;
        }
    }
    /* This ends the writer's calls too, and with them the writer. */
    raftz_error *error = NULL;
    was_stopped = (self.node == NULL ||
                   told(raftz_node_stop(self.node, PATIENCE_MS, &error), &error)) &&
                  was_stopped;
    if (is_writing) {
        pthread_join(writer, NULL);
    }
    raftz_node_free(self.node);
    raftz_queue_free(self.queue);
    return was_stopped ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- The parent ----------------------------------------------------------------------------- */

/* A child as the parent sees it. */
typedef struct process {
    pid_t pid;
    int orders, reports;
    /* What was read of its reports and is not a whole line yet. */
    char text[1 << 16];
    size_t length;
    bool is_ready, is_dumped;
    /* It was told to stop. */
    bool may_end;
    /* The term that it leads in; 0: it does not. */
    uint64_t leads;
    /* Its writer's ledger: so many of its sequence were acknowledged, from the first. */
    uint64_t acked;
    /* What it gave back: of each writer the next number to come, and its own word for all. */
    uint64_t next[NODES];
    uint64_t keys;
    char digest[32];
} process;

typedef struct cluster {
    char *root;
    const char *lie;
    int ports[NODES];
    char addresses[NODES][32];
    process process[NODES];
    uint64_t started, wanted;
    /* Of the newest term in which anything was acknowledged: itself, and when that was first. */
    uint64_t newest_term, newest_at;
    uint64_t marked, lost;
    char why[4 * LINE_BYTES];
} cluster;

static volatile sig_atomic_t interrupted = 0;

static void on_signal(int number) {
    interrupted = number;
}

static void say(const cluster *self, const char *format, ...) {
    va_list values;
    printf("[%6.2f s] ", (double)(now_ms() - self->started) / 1000);
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    printf("\n");
    fflush(stdout);
}

/* Remembers why it went wrong; the first reason counts. */
static bool fail(cluster *self, const char *format, ...) {
    if (self->why[0] == '\0') {
        va_list values;
        va_start(values, format);
        vsnprintf(self->why, sizeof self->why, format, values);
        va_end(values);
    }
    return false;
}

/* Ports for nodes that die and come back: held by sockets that are bound and never listen, so that
 * the system gives them to nobody else, and a listener that reuses addresses can have them. */
static bool reserve_ports(cluster *self) {
    for (int at = 0; at < NODES; at++) {
        const int yes = 1;
        struct sockaddr_in address = {.sin_family = AF_INET};
        socklen_t length = sizeof address;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        self->ports[at] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (self->ports[at] < 0 ||
            setsockopt(self->ports[at], SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
            bind(self->ports[at], (struct sockaddr *)&address, length) != 0 ||
            getsockname(self->ports[at], (struct sockaddr *)&address, &length) != 0) {
            return fail(self, "a port: %s", strerror(errno));
        }
        snprintf(self->addresses[at], sizeof self->addresses[at], "127.0.0.1:%d",
                 ntohs(address.sin_port));
    }
    return true;
}

/* In the new process: becomes a child. Only calls that are allowed between fork and exec. */
static void become_child(char **arguments, int orders, int reports) {
    if (dup2(orders, STDIN_FILENO) >= 0 && dup2(reports, STDOUT_FILENO) >= 0) {
        execv("/proc/self/exe", arguments);
    }
    _exit(127);
}

static bool start(cluster *self, int at) {
    process *one = &self->process[at];
    char id[16], from[32];
    snprintf(id, sizeof id, "%d", at + 1);
    snprintf(from, sizeof from, "%" PRIu64, one->acked);
    const char *lie = at == 1 ? self->lie : "";
    char *arguments[] = {"cluster", "--node", id, self->root, from, (char *)lie,
                         self->addresses[0], self->addresses[1], self->addresses[2], NULL};
    int orders[2] = {-1, -1}, reports[2] = {-1, -1};
    /* Not for the other children: a pipe ends when the last process that has it does. */
    if (pipe2(orders, O_CLOEXEC) != 0 || pipe2(reports, O_CLOEXEC) != 0 ||
        (one->pid = fork()) < 0) {
        one->pid = 0;
        return fail(self, "starting node %d: %s", at + 1, strerror(errno));
    }
    if (one->pid == 0) {
        become_child(arguments, orders[0], reports[1]);
    }
    close(orders[0]);
    close(reports[1]);
    one->orders = orders[1];
    one->reports = reports[0];
    one->length = 0;
    one->is_ready = false;
    say(self, "node %d started: process %d, %s", at + 1, (int)one->pid, self->addresses[at]);
    return true;
}

static bool order(cluster *self, int at, const char *line) {
    const size_t length = strlen(line);
    return write(self->process[at].orders, line, length) == (ssize_t)length ||
           fail(self, "node %d takes no orders: %s", at + 1, strerror(errno));
}

/* Compares a key and value of a node's store with what was written. Keys come in their order. */
static bool compare(cluster *self, int at, const char *key, const char *value) {
    int writer = 0;
    uint64_t number = 0;
    char real_key[LINE_BYTES], real_value[LINE_BYTES];
    if (strcmp(key, "mark") == 0) {
        return true;
    }
    if (sscanf(key, "%d/%" SCNu64, &writer, &number) != 2 || writer < 1 || writer > NODES) {
        return fail(self, "node %d has a key that was never written: %s", at + 1, key);
    }
    const uint64_t acked = self->process[writer - 1].acked;
    uint64_t *next = &self->process[at].next[writer - 1];
    pair(real_key, real_value, writer, number);
    if (strcmp(key, real_key) != 0 || strcmp(value, real_value) != 0 || number < *next ||
        number >= acked + BATCH) {
        return fail(self, "node %d has what was never written: %s %s", at + 1, key, value);
    }
    if (*next < number && *next < acked) {
        self->lost += (number < acked ? number : acked) - *next;
        fail(self, "node %d: %d/%09" PRIu64 " was acknowledged and is not there", at + 1, writer,
             *next);
    }
    *next = number + 1;
    return true;
}

/* The end of a node's store: what is missing behind its last keys? */
static void compare_end(cluster *self, int at) {
    process *one = &self->process[at];
    for (int writer = 0; writer < NODES; writer++) {
        const uint64_t acked = self->process[writer].acked;
        if (one->next[writer] < acked) {
            self->lost += acked - one->next[writer];
            fail(self, "node %d: %d/%09" PRIu64 " was acknowledged and is not there", at + 1,
                 writer + 1, one->next[writer]);
        }
    }
    one->is_dumped = true;
    say(self, "node %d: %" PRIu64 " keys, digest %s", at + 1, one->keys, one->digest);
}

static bool hear(cluster *self, int at, const char *line) {
    process *one = &self->process[at];
    uint64_t number = 0, term = 0;
    char key[LINE_BYTES], value[LINE_BYTES];
    if (sscanf(line, "acked %" SCNu64 " %" SCNu64, &number, &term) == 2) {
        one->acked = number;
        if (term > self->newest_term) {
            self->newest_term = term;
            self->newest_at = now_ms();
        }
    } else if (sscanf(line, "pair %255s %255s", key, value) == 2) {
        return compare(self, at, key, value);
    } else if (sscanf(line, "leads %" SCNu64, &term) == 1) {
        one->leads = term;
        say(self, "node %d leads, term %" PRIu64, at + 1, term);
    } else if (strncmp(line, "follows ", 8) == 0) {
        one->leads = 0;
    } else if (strcmp(line, "ready") == 0) {
        one->is_ready = true;
    } else if (sscanf(line, "store %" SCNu64 " %31s", &one->keys, one->digest) == 2) {
        compare_end(self, at);
    } else if (sscanf(line, "marked %" SCNu64, &number) == 1) {
        self->marked = number;
    } else {
        return fail(self, "node %d: %s", at + 1, line);
    }
    return true;
}

/* Reads what a child has said. At the end of its reports closes the pipes: the child is dead, and a
 * last line without an end was cut by that and counts for nothing. */
static bool listen_to(cluster *self, int at) {
    process *one = &self->process[at];
    const ssize_t count =
        read(one->reports, &one->text[one->length], sizeof one->text - one->length);
    if (count <= 0) {
        close(one->orders);
        close(one->reports);
        one->orders = one->reports = -1;
        one->leads = 0;
        return count == 0 || fail(self, "reports of node %d: %s", at + 1, strerror(errno));
    }
    one->length += (size_t)count;
    char *line = one->text, *end = NULL;
    bool goes_on = true;
    while (goes_on &&
           (end = memchr(line, '\n', one->length - (size_t)(line - one->text))) != NULL) {
        *end = '\0';
        goes_on = hear(self, at, line);
        line = end + 1;
    }
    one->length -= (size_t)(line - one->text);
    memmove(one->text, line, one->length);
    return goes_on;
}

/* Listens to all until a condition holds. A child that ends without having been killed, a signal
 * and too long a time end it too. */
static bool until(cluster *self, const char *what, bool (*holds)(const cluster *)) {
    const uint64_t deadline = now_ms() + WAIT_MS;
    while (!holds(self)) {
        struct pollfd wanted[NODES];
        for (int at = 0; at < NODES; at++) {
            wanted[at] = (struct pollfd){.fd = self->process[at].reports, .events = POLLIN};
        }
        const int count = poll(wanted, NODES, 200);
        if (interrupted) {
            return fail(self, "interrupted by signal %d", (int)interrupted);
        }
        for (int at = 0; at < NODES && count > 0; at++) {
            if (wanted[at].revents != 0 && !listen_to(self, at)) {
                return false;
            }
            const process *one = &self->process[at];
            if (one->pid > 0 && one->reports < 0 && !one->may_end) {
                return fail(self, "node %d ended before %s", at + 1, what);
            }
        }
        if (now_ms() > deadline) {
            return fail(self, "waited %d s in vain until %s", WAIT_MS / 1000, what);
        }
    }
    return true;
}

static uint64_t acked(const cluster *self) {
    uint64_t sum = 0;
    for (int at = 0; at < NODES; at++) {
        sum += self->process[at].acked;
    }
    return sum;
}

/* Who leads, and has had writes acknowledged in its term; -1: nobody. */
static int leader(const cluster *self) {
    for (int at = 0; at < NODES; at++) {
        const uint64_t leads = self->process[at].leads;
        if (leads != 0 && leads == self->newest_term) {
            return at;
        }
    }
    return -1;
}

static bool all_are_ready(const cluster *self) {
    return self->process[0].is_ready && self->process[1].is_ready && self->process[2].is_ready;
}

static bool a_third_is_written(const cluster *self) {
    return acked(self) >= self->wanted / 3 && leader(self) >= 0;
}

static uint64_t term_before_kill;

static bool another_took_over(const cluster *self) {
    return self->newest_term > term_before_kill;
}

static bool two_thirds_are_written(const cluster *self) {
    return acked(self) >= self->wanted / 3 * 2;
}

static bool all_is_written(const cluster *self) {
    return acked(self) >= self->wanted;
}

static bool the_dead_are_silent(const cluster *self) {
    for (int at = 0; at < NODES; at++) {
        if (self->process[at].pid == 0 && self->process[at].reports >= 0) {
            return false;
        }
    }
    return true;
}

static bool is_marked(const cluster *self) {
    return self->marked != 0;
}

static bool all_are_dumped(const cluster *self) {
    return self->process[0].is_dumped && self->process[1].is_dumped && self->process[2].is_dumped;
}

static bool all_are_silent(const cluster *self) {
    return self->process[0].reports < 0 && self->process[1].reports < 0 &&
           self->process[2].reports < 0;
}

/* Kills a child with SIGKILL and waits until it is gone. What it said is still in the pipe. */
static void kill_and_reap(cluster *self, int at) {
    process *one = &self->process[at];
    if (one->pid > 0) {
        kill(one->pid, SIGKILL);
        while (waitpid(one->pid, NULL, 0) < 0 && errno == EINTR) {
        }
        one->pid = 0;
    }
}

static bool start_all(cluster *self) {
    for (int at = 0; at < NODES; at++) {
        if (!start(self, at)) {
            return false;
        }
    }
    return until(self, "all nodes run", all_are_ready);
}

static bool kill_the_leader(cluster *self, uint64_t *failover_ms) {
    const int victim = leader(self);
    term_before_kill = self->newest_term;
    const uint64_t killed_at = now_ms();
    kill_and_reap(self, victim);
    say(self, "SIGKILL to node %d, the leader, with %" PRIu64 " writes acknowledged", victim + 1,
        acked(self));
    /* What the dead leader had committed may still be acknowledged by the others. Only a write of a
     * later term shows that the cluster goes on. */
    if (!until(self, "another node leads", another_took_over)) {
        return false;
    }
    *failover_ms = self->newest_at - killed_at;
    say(self, "the first write of term %" PRIu64 " was acknowledged %" PRIu64 " ms after the kill",
        self->newest_term, *failover_ms);
    return until(self, "two nodes have gone on writing", two_thirds_are_written) &&
           until(self, "the dead node's reports end", the_dead_are_silent) &&
           start(self, victim) && until(self, "all nodes run", all_are_ready) &&
           order(self, victim, "write\n") && until(self, "all is written", all_is_written);
}

static bool kill_all(cluster *self) {
    for (int at = 0; at < NODES; at++) {
        kill_and_reap(self, at);
    }
    if (!until(self, "the dead nodes' reports end", the_dead_are_silent)) {
        return false;
    }
    say(self, "SIGKILL to all three, in mid-load; %" PRIu64 " writes were acknowledged",
        acked(self));
    return true;
}

static bool read_back(cluster *self) {
    char dump[64];
    if (!order(self, 0, "mark\n") || !until(self, "a last write is acknowledged", is_marked)) {
        return false;
    }
    say(self, "reading everything back from each node, as of entry %" PRIu64, self->marked);
    snprintf(dump, sizeof dump, "dump %" PRIu64 "\n", self->marked);
    for (int at = 0; at < NODES; at++) {
        if (!order(self, at, dump)) {
            return false;
        }
    }
    if (!until(self, "all nodes have given back their stores", all_are_dumped)) {
        return false;
    }
    for (int at = 1; at < NODES; at++) {
        const process *one = &self->process[at], *first = &self->process[0];
        if (one->keys != first->keys || strcmp(one->digest, first->digest) != 0) {
            return fail(self, "the stores of nodes 1 and %d differ", at + 1);
        }
    }
    return self->lost == 0;
}

static bool stop_all(cluster *self) {
    for (int at = 0; at < NODES; at++) {
        self->process[at].may_end = true;
        if (!order(self, at, "stop\n")) {
            return false;
        }
    }
    bool in_order = until(self, "all nodes have stopped", all_are_silent);
    for (int at = 0; at < NODES && in_order; at++) {
        process *one = &self->process[at];
        int status = 0;
        while (waitpid(one->pid, &status, 0) < 0 && errno == EINTR) {
        }
        one->pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            in_order = fail(self, "node %d did not stop in order", at + 1);
        }
    }
    return in_order;
}

static bool play(cluster *self, uint64_t *failover_ms) {
    if (!reserve_ports(self) || !start_all(self)) {
        return false;
    }
    for (int at = 0; at < NODES; at++) {
        if (!order(self, at, "write\n")) {
            return false;
        }
    }
    say(self, "all three are writing");
    return until(self, "a leader has a third of the writes", a_third_is_written) &&
           kill_the_leader(self, failover_ms) && kill_all(self) && start_all(self) &&
           read_back(self) && stop_all(self);
}

int main(int argc, char **argv) {
    /* A process that writes to one that has died shall get an error, not die too. */
    signal(SIGPIPE, SIG_IGN);
    if (argc == 5 + 1 + NODES && strcmp(argv[1], "--node") == 0) {
        return child_main(&argv[2]);
    }
    static cluster self = {.lie = "", .wanted = WRITES, .ports = {-1, -1, -1}};
    uint64_t failover_ms = 0;
    for (int at = 1; at < argc; at++) {
        if (strcmp(argv[at], "--lie") == 0) {
            self.lie = "lie";
        } else {
            self.wanted = strtoull(argv[at], NULL, 10);
        }
    }
    const struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    self.started = now_ms();
    for (int at = 0; at < NODES; at++) {
        self.process[at].orders = self.process[at].reports = -1;
    }
    self.root = scratch_new("cluster");
    bool passed = self.root != NULL && play(&self, &failover_ms);
    /* No process outlives this, whatever the reason; and then the directory goes. */
    for (int at = 0; at < NODES; at++) {
        kill_and_reap(&self, at);
        if (self.process[at].reports >= 0) {
            close(self.process[at].orders);
            close(self.process[at].reports);
        }
        if (self.ports[at] >= 0) {
            close(self.ports[at]);
        }
    }
    passed = scratch_remove(self.root) && passed;
    if (passed) {
        printf("PASS: %" PRIu64 " acknowledged writes, 0 lost, failover %" PRIu64 " ms\n",
               acked(&self), failover_ms);
    } else {
        printf("FAIL: %" PRIu64 " acknowledged writes, %" PRIu64 " lost; %s\n", acked(&self),
               self.lost, self.why);
    }
    return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}
