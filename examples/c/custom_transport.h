/*
 * The transport of the example custom_transport, to be taken elsewhere with custom_transport_unix.c.
 */
#ifndef RAFTZ_EXAMPLES_CUSTOM_TRANSPORT_H
#define RAFTZ_EXAMPLES_CUSTOM_TRANSPORT_H

#include <raftz.h>

/* A node's place: all sockets lie in one folder. It must stay as long as the transport is used. */
typedef struct unix_place {
    const char *folder;
    /* The node's own socket there; its address is this and ":1". */
    const char *name;
} unix_place;

/* Carries messages between processes of one user on one machine, over Unix sockets. */
raftz_transport unix_sockets(unix_place *place);

#endif
