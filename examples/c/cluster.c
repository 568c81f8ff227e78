/*
 * Three processes over TCP with their logs on disk. The leader's process is killed while all three
 * write, another takes over; the dead node comes back when the others' logs no longer hold what it
 * lacks, and has it by a snapshot; all are killed, all are started again; and everything that was
 * ever acknowledged is read back from each of them and compared.
 *
 *     cluster [writes]
 *
 * One program plays both parts. Started by a person it is the parent, this file, which starts
 * itself three times, kills, and keeps the ledger; it makes no call of raftz, for a library with
 * threads is not to be forked. A child, cluster_child.c, is one node and one writer. They speak
 * lines: orders go to a child's standard input, reports come from its standard output; cluster.h
 * lists them.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"

/* So many must be acknowledged, if the command line does not say how many. */
enum { WRITES = 3000 };

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
    /* The last entries of the newest snapshot that it has taken, and that it was brought back by. */
    uint64_t built, installed;
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
    /* Of the newest term in which anything was acknowledged: itself, and when and where that was
     * first. */
    uint64_t newest_term, newest_at, newest_index, term_before_kill;
    /* Who was killed, and the first entry that it certainly lacks. */
    int victim;
    uint64_t lacks;
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
    uint64_t number = 0, term = 0, index = 0;
    char key[LINE_BYTES], value[LINE_BYTES];
    if (sscanf(line, "acked %" SCNu64 " %" SCNu64 " %" SCNu64, &number, &term, &index) == 3) {
        one->acked = number;
        if (term > self->newest_term) {
            self->newest_term = term;
            self->newest_at = now_ms();
            self->newest_index = index;
        }
    } else if (sscanf(line, "built %" SCNu64, &index) == 1) {
        one->built = index;
    } else if (sscanf(line, "installed %" SCNu64, &index) == 1) {
        one->installed = index;
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

static bool another_took_over(const cluster *self) {
    return self->newest_term > self->term_before_kill;
}

static bool two_thirds_are_written(const cluster *self) {
    return acked(self) >= self->wanted / 3 * 2;
}

/* Logs begin behind the newest snapshot here, so who has taken one of an entry that the dead node lacks
 * can bring it back by a snapshot only. */
static bool the_living_have_dropped_it(const cluster *self) {
    for (int at = 0; at < NODES; at++) {
        if (at != self->victim && self->process[at].built < self->lacks) {
            return false;
        }
    }
    return true;
}

static bool it_came_back_by_snapshot(const cluster *self) {
    return self->process[self->victim].installed >= self->lacks;
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
    const int victim = self->victim = leader(self);
    self->term_before_kill = self->newest_term;
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
    /* It cannot have what was first written in a term that began without it. */
    self->lacks = self->newest_index;
    say(self, "the first write of term %" PRIu64 " was acknowledged %" PRIu64 " ms after the kill",
        self->newest_term, *failover_ms);
    if (!until(self, "two nodes have gone on writing", two_thirds_are_written) ||
        !until(self, "the dead node's reports end", the_dead_are_silent) ||
        !until(self, "no log holds what it lacks", the_living_have_dropped_it)) {
        return false;
    }
    say(self, "the others' logs no longer hold all that node %d lacks", victim + 1);
    if (!start(self, victim) || !until(self, "all nodes run", all_are_ready) ||
        !until(self, "a snapshot brings it back", it_came_back_by_snapshot)) {
        return false;
    }
    say(self, "node %d came back by a snapshot of all up to entry %" PRIu64, victim + 1,
        self->process[victim].installed);
    return order(self, victim, "write\n") && until(self, "all is written", all_is_written);
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
