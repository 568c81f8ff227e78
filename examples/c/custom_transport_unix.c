/*
 * A transport for raftz over Unix sockets: a message is its length in four bytes, and its bytes.
 *
 * Two threads have to do with it. The node's own calls `send`, which writes what the socket takes at once, so that nothing
 * waits there. The other one is the transport's: it dials, accepts, reads, and writes what was left over. A link is freed
 * by the transport's thread, once the node has ended it and what was left over is written.
 */
#define _GNU_SOURCE

#include "custom_transport.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    LENGTH_BYTES = 4,
    NAME_BYTES = 64,
    PEERS_MAX = 16,
    LINKS_MAX = 64,
    /* Parts of a message that are written without a copy. */
    PARTS_MAX = 256,
    /* Until a message that found no room is given again. */
    FULL_MS = 2
};

typedef struct link {
    int socket;
    uint64_t number;
    /* What the socket did not take, to be written before anything else. */
    uint8_t *rest;
    size_t rest_at, rest_len;
    /* `send` was given more than it took. */
    bool is_held;
    /* What is being read: the length first, then the message. */
    uint8_t length[LENGTH_BYTES];
    uint8_t *message;
    size_t have, want;
    /* The node has no room for the message. */
    bool is_full;
    /* There is nothing more to be had from the socket; the node has ended the link. */
    bool is_down, is_ended;
} link_t;

typedef struct peer {
    uint64_t id;
    char name[NAME_BYTES];
} peer_t;

typedef struct transport {
    const unix_place *place;
    raftz_links *links;
    int folder, listener, wake;
    pthread_t thread;
    /* What both threads use is behind the lock. */
    pthread_mutex_t lock;
    bool is_ending;
    /* Whom to dial. */
    peer_t due[PEERS_MAX];
    size_t due_count;
    link_t *link[LINKS_MAX];
    size_t link_count;
} transport;

static void wake(const transport *self) {
    const uint64_t one = 1;
    (void)!write(self->wake, &one, sizeof one);
}

/* A name in the folder as an address. The way over the descriptor is short, however long the folder's path is. */
static struct sockaddr_un address_of(const transport *self, const char *name) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%.*s", self->folder,
             NAME_BYTES, name);
    return address;
}

/* Whether whoever is at the other end runs as the same user. raftz takes its word for the rest. */
static bool is_ours(int socket) {
    struct ucred who = {0, 0, 0};
    socklen_t bytes = sizeof who;
    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &who, &bytes) == 0 && who.uid == geteuid();
}

/* Takes a connected socket in; whether that was possible. */
static bool link_up(transport *self, int socket, uint64_t peer) {
    link_t *link = calloc(1, sizeof *link);
    pthread_mutex_lock(&self->lock);
    bool is_up = link != NULL && self->link_count < LINKS_MAX && is_ours(socket);
    if (is_up) {
        link->socket = socket;
        link->want = LENGTH_BYTES;
        is_up = raftz_links_up(self->links, peer, link, &link->number, NULL) == RAFTZ_OK;
    }
    if (is_up) {
        self->link[self->link_count++] = link;
    }
    pthread_mutex_unlock(&self->lock);
    if (!is_up) {
        close(socket);
        free(link);
    }
    return is_up;
}

static void accept_all(transport *self) {
    int socket;
    while ((socket = accept4(self->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
        link_up(self, socket, 0);
    }
}

/* Dials whom the node has asked for, and says if it was in vain. */
static void dial_all(transport *self) {
    peer_t due[PEERS_MAX];
    pthread_mutex_lock(&self->lock);
    const size_t count = self->due_count;
    memcpy(due, self->due, count * sizeof *due);
    self->due_count = 0;
    pthread_mutex_unlock(&self->lock);
    for (size_t at = 0; at < count; at++) {
        const struct sockaddr_un address = address_of(self, due[at].name);
        const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        char words[128] = "it was not taken in";
        bool is_up = false;
        if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
            snprintf(words, sizeof words, "cannot connect to %s: %s", due[at].name, strerror(errno));
            if (fd >= 0) {
                close(fd);
            }
        } else {
            is_up = link_up(self, fd, due[at].id);
        }
        if (!is_up) {
            raftz_links_unreachable(self->links, due[at].id, raftz_text(words), NULL);
        }
    }
}

/* With the lock. Writes what was left over; false if that is not possible any more. */
static bool write_rest(link_t *link) {
    while (link->rest_at < link->rest_len) {
        const ssize_t written = send(link->socket, link->rest + link->rest_at,
                                     link->rest_len - link->rest_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0) {
            return errno == EAGAIN || errno == EINTR;
        }
        link->rest_at += (size_t)written;
    }
    free(link->rest);
    link->rest = NULL;
    link->rest_at = link->rest_len = 0;
    return true;
}

/* Gives the node a message that is whole. */
static void deliver(transport *self, link_t *link) {
    const raftz_slice message = {link->message, link->have};
    const raftz_status status = raftz_links_deliver(self->links, link->number, message, 0, NULL);
    link->is_full = status == RAFTZ_BUSY;
    if (!link->is_full) {
        /* Garbage ends the link, which `end` will say. */
        link->is_down = link->is_down || status != RAFTZ_OK;
        free(link->message);
        link->message = NULL;
        link->have = 0;
        link->want = LENGTH_BYTES;
    }
}

/* Reads what there is, as far as the node takes it; why there is no more, if it is over. */
static const char *read_all(transport *self, link_t *link) {
    while (!link->is_down && !link->is_full) {
        uint8_t *into = link->message != NULL ? link->message : link->length;
        const ssize_t got = recv(link->socket, into + link->have, link->want - link->have, MSG_DONTWAIT);
        if (got < 0) {
            return errno == EAGAIN || errno == EINTR ? NULL : strerror(errno);
        }
        if (got == 0) {
            return "the other side has closed the socket";
        }
        link->have += (size_t)got;
        if (link->have < link->want) {
            continue;
        }
        if (link->message != NULL) {
            deliver(self, link);
            continue;
        }
        size_t bytes = 0;
        for (int at = 0; at < LENGTH_BYTES; at++) {
            bytes |= (size_t)link->length[at] << (8 * at);
        }
        if (bytes == 0 || bytes > raftz_links_bytes_max(self->links)) {
            return "a message claims a length that none can have";
        }
        link->message = malloc(bytes);
        if (link->message == NULL) {
            return "there is no memory for a message";
        }
        link->have = 0;
        link->want = bytes;
    }
    return NULL;
}

static void link_free(link_t *link) {
    close(link->socket);
    free(link->rest);
    free(link->message);
    free(link);
}

/* Does what can be done on a link; whether it is to be kept. */
static bool serve(transport *self, link_t *link) {
    if (link->is_full) {
        deliver(self, link);
    }
    const char *over = link->is_down ? NULL : read_all(self, link);
    pthread_mutex_lock(&self->lock);
    if (!write_rest(link)) {
        over = over != NULL ? over : strerror(errno);
        link->rest_at = link->rest_len;
    }
    const bool takes_more = link->is_held && link->rest_len == link->rest_at;
    link->is_held = link->is_held && !takes_more;
    const bool is_kept = !link->is_ended || link->rest_at < link->rest_len;
    pthread_mutex_unlock(&self->lock);
    if (over != NULL) {
        link->is_down = true;
        raftz_links_down(self->links, link->number, raftz_text(over), NULL);
    } else if (takes_more) {
        raftz_links_ready(self->links, link->number, NULL);
    }
    return is_kept;
}

static void serve_all(transport *self) {
    for (size_t at = 0; at < self->link_count;) {
        /* Only this thread takes links in or out. */
        link_t *link = self->link[at];
        if (serve(self, link)) {
            at++;
        } else {
            self->link[at] = self->link[--self->link_count];
            link_free(link);
        }
    }
}

static void *carry(void *argument) {
    transport *self = argument;
    bool is_ending = false;
    while (!is_ending) {
        struct pollfd wanted[LINKS_MAX + 2] = {{self->listener, POLLIN, 0}, {self->wake, POLLIN, 0}};
        int wait_ms = -1;
        const size_t count = self->link_count;
        pthread_mutex_lock(&self->lock);
        for (size_t at = 0; at < count; at++) {
            const link_t *link = self->link[at];
            const bool reads = !link->is_down && !link->is_full, writes = link->rest_len > 0;
            wanted[at + 2].fd = reads || writes ? link->socket : -1;
            wanted[at + 2].events = (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
            wait_ms = link->is_full ? FULL_MS : wait_ms;
        }
        pthread_mutex_unlock(&self->lock);
        (void)poll(wanted, (nfds_t)(count + 2), wait_ms);
        uint64_t woken = 0;
        (void)!read(self->wake, &woken, sizeof woken);
        accept_all(self);
        dial_all(self);
        serve_all(self);
        pthread_mutex_lock(&self->lock);
        is_ending = self->is_ending;
        pthread_mutex_unlock(&self->lock);
    }
    return NULL;
}

/* ---- what the node calls ---- */

static void dial(void *of, uint64_t peer_id, raftz_slice address) {
    transport *self = of;
    peer_t peer = {.id = peer_id};
    /* Without its ":1". */
    const uint8_t *colon = memchr(address.data, ':', address.len);
    const size_t len = colon != NULL ? (size_t)(colon - address.data) : address.len;
    pthread_mutex_lock(&self->lock);
    if (len < NAME_BYTES && self->due_count < PEERS_MAX) {
        memcpy(peer.name, address.data, len);
        self->due[self->due_count++] = peer;
    }
    pthread_mutex_unlock(&self->lock);
    wake(self);
}

/* Keeps what the socket did not take of a message, which has `len` bytes with its length. */
static bool keep_rest(link_t *link, const struct iovec *parts, size_t count, size_t len, size_t written) {
    uint8_t *rest = malloc(len);
    if (rest == NULL) {
        return false;
    }
    size_t at = 0;
    for (size_t of = 0; of < count; of++) {
        memcpy(rest + at, parts[of].iov_base, parts[of].iov_len);
        at += parts[of].iov_len;
    }
    link->rest = rest;
    link->rest_at = written;
    link->rest_len = len;
    return true;
}

static bool send_one(link_t *link, const raftz_message *message) {
    uint8_t length[LENGTH_BYTES];
    struct iovec few[PARTS_MAX], *parts = few;
    const size_t count = message->part_count + 1, len = message->len + LENGTH_BYTES;
    if (count > PARTS_MAX && (parts = malloc(count * sizeof *parts)) == NULL) {
        return false;
    }
    for (int at = 0; at < LENGTH_BYTES; at++) {
        length[at] = (uint8_t)(message->len >> (8 * at));
    }
    parts[0] = (struct iovec){length, LENGTH_BYTES};
    for (size_t at = 1; at < count; at++) {
        const raftz_slice part = message->parts[at - 1];
        parts[at] = (struct iovec){(void *)(uintptr_t)part.data, part.len};
    }
    ssize_t written = 0;
    if (count <= PARTS_MAX) {
        const struct msghdr all = {.msg_iov = parts, .msg_iovlen = count};
        written = sendmsg(link->socket, &all, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (written < 0 && (errno == EAGAIN || errno == EINTR)) {
            written = 0;
        }
    }
    bool is_taken = written >= 0;
    if (is_taken && (size_t)written < len) {
        is_taken = keep_rest(link, parts, count, len, (size_t)written);
    }
    if (parts != few) {
        free(parts);
    }
    return is_taken;
}

static raftz_status send_all(void *of, void *link_context, const raftz_message *messages, size_t count,
                             size_t *taken, raftz_sink *why) {
    transport *self = of;
    link_t *link = link_context;
    bool is_sent = true;
    pthread_mutex_lock(&self->lock);
    for (*taken = 0; *taken < count && link->rest == NULL; ++*taken) {
        is_sent = send_one(link, &messages[*taken]);
        if (!is_sent) {
            raftz_sink_fail(why, raftz_text(strerror(errno)));
            break;
        }
    }
    link->is_held = *taken < count;
    const bool has_rest = link->rest != NULL;
    pthread_mutex_unlock(&self->lock);
    if (has_rest) {
        wake(self);
    }
    return is_sent ? RAFTZ_OK : RAFTZ_CALLBACK_FAILED;
}

static void end(void *of, void *link_context, raftz_slice reason) {
    transport *self = of;
    link_t *link = link_context;
    (void)reason;
    pthread_mutex_lock(&self->lock);
    link->is_ended = true;
    pthread_mutex_unlock(&self->lock);
    wake(self);
}

static void transport_free(transport *self) {
    for (size_t at = 0; at < self->link_count; at++) {
        link_free(self->link[at]);
    }
    const int descriptors[] = {self->listener, self->folder, self->wake};
    for (int at = 0; at < 3; at++) {
        if (descriptors[at] >= 0) {
            close(descriptors[at]);
        }
    }
    pthread_mutex_destroy(&self->lock);
    free(self);
}

static void destroy(void *of) {
    transport *self = of;
    pthread_mutex_lock(&self->lock);
    self->is_ending = true;
    pthread_mutex_unlock(&self->lock);
    wake(self);
    pthread_join(self->thread, NULL);
    raftz_links_free(self->links);
    unlinkat(self->folder, self->place->name, 0);
    transport_free(self);
}

/* Listens in the folder, under a name that a killed process may have left behind. */
static bool listen_there(transport *self) {
    self->folder = open(self->place->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    self->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->folder < 0 || self->wake < 0 || self->listener < 0) {
        return false;
    }
    const struct sockaddr_un address = address_of(self, self->place->name);
    (void)unlinkat(self->folder, self->place->name, 0);
    return bind(self->listener, (const struct sockaddr *)&address, sizeof address) == 0 &&
           listen(self->listener, LINKS_MAX) == 0;
}

static raftz_status open_there(void *user_data, raftz_links *links, raftz_sink *why, void **of) {
    transport *self = calloc(1, sizeof *self);
    if (self == NULL) {
        return RAFTZ_CALLBACK_FAILED;
    }
    self->place = user_data;
    self->links = links;
    self->folder = self->wake = self->listener = -1;
    pthread_mutex_init(&self->lock, NULL);
    const bool listens = listen_there(self);
    if (!listens || (errno = pthread_create(&self->thread, NULL, carry, self)) != 0) {
        raftz_sink_fail(why, raftz_text(strerror(errno)));
        transport_free(self);
        return RAFTZ_CALLBACK_FAILED;
    }
    *of = self;
    return RAFTZ_OK;
}

raftz_transport unix_sockets(unix_place *place) {
    raftz_transport table = RAFTZ_TRANSPORT_INIT;
    table.user_data = place;
    table.open = open_there;
    table.destroy = destroy;
    table.dial = dial;
    table.send = send_all;
    table.end = end;
    return table;
}
