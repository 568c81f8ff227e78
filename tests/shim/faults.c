/* Which faults are wanted, and the socket on which a test orders them.
 *
 * One order a line, one answer a line. Until "go" the program has not begun: what is ordered before
 * holds from its first instruction.
 *
 *   go
 *   cut SEED                      cuts the power; the answer tells what became of what; 0: nothing
 *                                 that was not synced is left
 *   cut-at OPERATIONS SEED        the same after so many writes, syncs, renames, …
 *   lie files|directories|nothing syncs of these do nothing and say that they did
 *   fail write|sync               the next one, with EIO
 *   full on|off                   no room: ENOSPC where a file would grow or begin
 *   full unseen                   the same, while the file system claims to have room (a quota)
 *   stall on|off                  syncs do not return
 *   host NAME                     a name that stands for this machine
 *   resolver hangs|answers        about that name
 *   met                           how often each fault was met
 */
#include "shim.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct faults faults;
struct met met;
static int control = -1;

void die(const char *what, const char *detail)
{
    char line[2 * PATH_BYTES];
    snprintf(line, sizeof line, "shim: %s: %s\n", what, detail);
    /* If nobody can be told why, the exit status still tells that. */
    if (real.write != NULL)
        (void)!real.write(STDERR_FILENO, line, strlen(line));
    _exit(99);
}

static void answer(const char *line)
{
    /* A test that has gone away needs no answer. */
    (void)!send(control, line, strlen(line), MSG_NOSIGNAL);
}

static _Noreturn void cut(uint64_t seed)
{
    char line[256];
    struct tally tally = {0};
    uint64_t dice = seed;
    bool drop_all = seed == 0 || draw(&dice) % 4 == 0;
    journal_cut(drop_all, &dice, &tally);
    names_cut(drop_all, &dice, &tally);
    snprintf(line, sizeof line, "cut %llu %llu %llu %u %u\n", (unsigned long long)tally.kept,
             (unsigned long long)tally.dropped, (unsigned long long)tally.garbled,
             tally.names_kept, tally.names_undone);
    answer(line);
    _exit(137);
}

void step(void)
{
    met.operations++;
    if (faults.cut_at > 0 && --faults.cut_at == 0)
        cut(faults.cut_seed);
}

/* Which of two words it is: the first, true. */
static bool is_first(const char *word, const char *first, const char *second)
{
    bool is = strcmp(word, first) == 0;
    if (!is && strcmp(word, second) != 0)
        die("neither word that was expected", word);
    return is;
}

/* Carries an order out, under the lock; whether the program may begin. */
static bool obey(const char *line)
{
    char verb[32] = "", word[256] = "", reply[256] = "ok\n";
    unsigned long long number = 0, seed = 0;
    if (sscanf(line, "cut %llu", &seed) == 1)
        cut(seed);
    sscanf(line, "%31s %255s", verb, word);
    if (sscanf(line, "cut-at %llu %llu", &number, &seed) == 2) {
        faults.cut_at = number;
        faults.cut_seed = seed;
    } else if (strcmp(line, "lie nothing") == 0) {
        faults.lie_files = faults.lie_directories = false;
    } else if (strcmp(verb, "lie") == 0) {
        faults.lie_files = is_first(word, "files", "directories");
        faults.lie_directories = !faults.lie_files;
    } else if (strcmp(line, "fail write") == 0) {
        faults.fail_writes++;
    } else if (strcmp(line, "fail sync") == 0) {
        faults.fail_syncs++;
    } else if (strcmp(line, "full unseen") == 0) {
        faults.full = true;
        faults.shows_full = false;
    } else if (strcmp(verb, "full") == 0) {
        faults.full = faults.shows_full = is_first(word, "on", "off");
    } else if (strcmp(verb, "stall") == 0) {
        faults.stalled = is_first(word, "on", "off");
    } else if (strcmp(verb, "host") == 0) {
        strcpy(faults.host, word);
    } else if (strcmp(verb, "resolver") == 0) {
        faults.resolver_hangs = is_first(word, "hangs", "answers");
    } else if (strcmp(verb, "met") == 0) {
        snprintf(reply, sizeof reply, "met %llu %llu %llu %llu %llu %llu %llu\n",
                 (unsigned long long)met.operations, (unsigned long long)met.lied,
                 (unsigned long long)met.failed, (unsigned long long)met.full,
                 (unsigned long long)met.stalled, (unsigned long long)met.lookups,
                 (unsigned long long)met.inherited);
    } else if (strcmp(verb, "go") != 0) {
        die("no such order", line);
    }
    pthread_cond_broadcast(&news);
    answer(reply);
    return strcmp(verb, "go") == 0;
}

/* The next order; false when the test has hung up. */
static bool hear(char line[256])
{
    size_t length = 0;
    for (char byte; recv(control, &byte, 1, 0) == 1;) {
        if (byte == '\n') {
            line[length] = 0;
            return true;
        }
        if (length == 255)
            die("an order is too long", "");
        line[length++] = byte;
    }
    return false;
}

static bool hear_and_obey(void)
{
    char line[256];
    if (!hear(line))
        return true;
    pthread_mutex_lock(&lock);
    bool go = obey(line);
    pthread_mutex_unlock(&lock);
    return go;
}

static void *listen_for_orders(void *nothing)
{
    char line[256];
    while (hear(line)) {
        pthread_mutex_lock(&lock);
        obey(line);
        pthread_mutex_unlock(&lock);
    }
    return nothing;
}

void faults_open(const char *socket_name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(socket_name);
    if (length >= sizeof address.sun_path)
        die("the name of the control socket is too long", socket_name);
    memcpy(address.sun_path + 1, socket_name, length);
    control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    if (control < 0 || connect(control, (struct sockaddr *)&address, bytes) != 0)
        die("cannot reach the test", strerror(errno));
    while (!hear_and_obey())
        continue;
    pthread_t listener;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&listener, NULL, listen_for_orders, NULL) != 0)
        die("cannot start a thread", "");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_detach(listener);
}
