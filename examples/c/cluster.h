/*
 * What the parent and the children of cluster.c agree on.
 *
 * A child is told, in lines:
 *     write           begin to write, and never stop
 *     mark            make one more write; answered by `marked`
 *     dump INDEX      give back the store as of this entry; answered by `pair`s and `store`
 *     stop            end in order
 * and if there is nobody any more to tell it anything, it ends.
 *
 * A child tells:
 *     ready                  the node runs
 *     leads TERM, follows TERM
 *     acked COUNT TERM INDEX so many writes of its sequence are acknowledged, from the first; where
 *                            the last of them is
 *     built INDEX            it has taken a snapshot up to this entry
 *     installed INDEX        it lacked more than the others' logs held, and has it by a snapshot
 *     marked INDEX
 *     pair KEY VALUE         in the order of the keys
 *     store KEYS DIGEST      the end of the pairs
 *     fatal WORDS            it cannot go on
 */
#ifndef RAFTZ_EXAMPLES_CLUSTER_H
#define RAFTZ_EXAMPLES_CLUSTER_H

#include "common.h"

enum {
    /* Writes that a child has on the way at once. */
    BATCH = 16,
    LINE_BYTES = 256,
    WAIT_MS = 2 * PATIENCE_MS
};

/* The writes: each node's writer has a sequence of keys of its own. */
static inline void pair(char *key, char *value, int node, uint64_t number) {
    snprintf(key, LINE_BYTES, "%d/%09" PRIu64, node, number);
    snprintf(value, LINE_BYTES, "value-%" PRIu64 "-of-node-%d", number * 2654435761u, node);
}

/* A child's life. Its arguments: the node's id, the root of the data, where its writer begins,
 * "lie" or "", and the addresses of all nodes. */
int child_main(char **arguments);

#endif
