/**
 * \file raftz.h
 * \brief raftz: Raft consensus as a library.
 *
 * SPDX-License-Identifier: MIT
 *
 * Made by cbindgen from raftz-ffi/src; do not edit.
 */

#ifndef RAFTZ_H
#define RAFTZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * \brief A timeout: as long as it takes (49 days, to be exact).
 */
#define RAFTZ_WAIT_FOREVER 4294967295

/**
 * \brief Version of this header: its major number.
 */
#define RAFTZ_VERSION_MAJOR 0

/**
 * \brief Version of this header: its minor number. Before 1.0 each may change the ABI.
 */
#define RAFTZ_VERSION_MINOR 2

/**
 * \brief Version of this header: its patch number.
 */
#define RAFTZ_VERSION_PATCH 0

/**
 * \brief Version of this header as one number: major * 10000 + minor * 100 + patch.
 */
#define RAFTZ_VERSION 200

/**
 * \brief Version of this header's vtables; to be put into their `abi_version`.
 */
#define RAFTZ_ABI_VERSION 1

/**
 * \brief How much a log line matters: errors.
 */
#define RAFTZ_LOG_ERROR 1

/**
 * \brief How much a log line matters: what an operator should look at.
 */
#define RAFTZ_LOG_WARN 2

/**
 * \brief How much a log line matters: what happens now and then.
 */
#define RAFTZ_LOG_INFO 3

/**
 * \brief How much a log line matters: for whoever looks for a mistake.
 */
#define RAFTZ_LOG_DEBUG 4

/**
 * \brief How much a log line matters: everything.
 */
#define RAFTZ_LOG_TRACE 5

/**
 * \brief In a queue: a call has ended; see the event's outcomes. Never told otherwise.
 */
#define RAFTZ_EVENT_COMPLETION 0

/**
 * \brief The node's role or term changed: `role`, `term`.
 */
#define RAFTZ_EVENT_ROLE 1

/**
 * \brief Another leader is known, or none any more: `peer_id` (0: none), `term`.
 */
#define RAFTZ_EVENT_LEADER 2

/**
 * \brief This node leads and has committed an entry of its own term: `term`.
 */
#define RAFTZ_EVENT_READY 3

/**
 * \brief A membership took effect: `index`, and in `text` its voters.
 */
#define RAFTZ_EVENT_MEMBERSHIP 4

/**
 * \brief A link to a peer is usable: `peer_id`.
 */
#define RAFTZ_EVENT_PEER_UP 5

/**
 * \brief No link to a peer is usable any more: `peer_id`, `text`.
 */
#define RAFTZ_EVENT_PEER_DOWN 6

/**
 * \brief A peer was refused, because it is not what the membership says: `peer_id`, `text`.
 */
#define RAFTZ_EVENT_PEER_REFUSED 7

/**
 * \brief A message that no honest node sends was dropped: `peer_id`, `text`.
 */
#define RAFTZ_EVENT_NONSENSE 8

/**
 * \brief Damaged entries have been replaced; the node is whole again: `index`.
 */
#define RAFTZ_EVENT_HEALED 9

/**
 * \brief A peer answers, but its log stands still: `peer_id`, `index` (how far it is).
 */
#define RAFTZ_EVENT_PEER_STALLED 10

/**
 * \brief Storage could not do something that the node can live without: `text`.
 */
#define RAFTZ_EVENT_STORAGE_TROUBLE 11

/**
 * \brief The network could not do something that concerns no peer in particular: `text`.
 */
#define RAFTZ_EVENT_NETWORK_TROUBLE 12

/**
 * \brief Free disk space fell below the reserve (`is_on` 1) or is back (0).
 */
#define RAFTZ_EVENT_STORAGE_FULL 13

/**
 * \brief The node has stopped because of a fault and does nothing more: `text`.
 */
#define RAFTZ_EVENT_FAULTED 14

/**
 * \brief Progress of a snapshot: `phase`, its last entry `index`, `bytes` of `total_bytes`, and `peer_id` where
 * it moves between nodes.
 */
#define RAFTZ_EVENT_SNAPSHOT 15

/**
 * \brief Leadership is being handed over by this node: `phase` (RAFTZ_TRANSFER_…), `peer_id` (who is to lead, or
 * who leads once it is done), and in `text` why it was begun, or why it failed.
 */
#define RAFTZ_EVENT_TRANSFER 16

/**
 * \brief Events were dropped, because nobody took them in time; none of those that replace each other is among
 * them: `count`, so far. With `node_id` 0 it is the queue that dropped them.
 */
#define RAFTZ_EVENT_DROPPED 17

/**
 * \brief Every kind of event that this version tells of.
 */
#define RAFTZ_EVENTS_ALL 18446744073709551615ull

/**
 * \brief A snapshot's phase: this node has taken it.
 */
#define RAFTZ_SNAPSHOT_BUILT 1

/**
 * \brief A snapshot's phase: a peer fetches it from this node.
 */
#define RAFTZ_SNAPSHOT_SENDING 2

/**
 * \brief A snapshot's phase: the peer was given its last piece.
 */
#define RAFTZ_SNAPSHOT_SENT 3

/**
 * \brief A snapshot's phase: this node fetches it.
 */
#define RAFTZ_SNAPSHOT_FETCHING 4

/**
 * \brief A snapshot's phase: it is on this node's disk, whole.
 */
#define RAFTZ_SNAPSHOT_FETCHED 5

/**
 * \brief A snapshot's phase: the state machine was restored from it.
 */
#define RAFTZ_SNAPSHOT_INSTALLED 6

/**
 * \brief A snapshot's phase: it is not fetched any more; a later offer may go on with it.
 */
#define RAFTZ_SNAPSHOT_FAILED 7

/**
 * \brief A node's role: follows a leader, or waits for one.
 */
#define RAFTZ_ROLE_FOLLOWER 0

/**
 * \brief A node's role: asks whether an election would succeed.
 */
#define RAFTZ_ROLE_PRE_CANDIDATE 1

/**
 * \brief A node's role: stands for election.
 */
#define RAFTZ_ROLE_CANDIDATE 2

/**
 * \brief A node's role: leads.
 */
#define RAFTZ_ROLE_LEADER 3

/**
 * \brief In a machine's flags: none of its functions ever blocks or takes long. They may then run on the
 * node's event loop, which saves the way to another thread.
 */
#define RAFTZ_MACHINE_NEVER_BLOCKS 1

/**
 * \brief Which machine a node keeps, if it is none of the program's own: the key-value store.
 */
#define RAFTZ_BUILTIN_KV 0

/**
 * \brief Which machine a node keeps, if it is none of the program's own: one that counts and folds its
 * commands, for tests and measurements.
 */
#define RAFTZ_BUILTIN_COUNTER 1

/**
 * \brief In a storage's flags: none of its functions ever blocks or takes long, and `submit` completes before it
 * returns. They may then run on the node's event loop, which saves the way to another thread.
 */
#define RAFTZ_STORAGE_NEVER_BLOCKS 1

/**
 * \brief In raftz_conformance_opts' flags: the store is empty again after a close. The rules about that are left out.
 */
#define RAFTZ_CONFORMANCE_FORGETS 1

/**
 * \brief How urgent a message is: elections, heartbeats, acknowledgements; first of all.
 */
#define RAFTZ_MESSAGE_CONTROL 0

/**
 * \brief How urgent a message is: entries of the log.
 */
#define RAFTZ_MESSAGE_DATA 1

/**
 * \brief How urgent a message is: pieces of snapshots, which should hold up nothing else.
 */
#define RAFTZ_MESSAGE_BULK 2

/**
 * \brief In an outcome's flags: the state machine turned the command down; `reply` says why. The command
 * is in the log all the same, and was turned down alike on every node.
 */
#define RAFTZ_OUTCOME_REJECTED 1

/**
 * \brief In an outcome's flags: the command may have had its effect, or may still have it. Without this
 * flag and with a status other than RAFTZ_OK it certainly had none.
 */
#define RAFTZ_OUTCOME_UNKNOWN 2

/**
 * \brief Whether a follower may hand a command to the leader, or hold it while there is none: as the
 * configuration says.
 */
#define RAFTZ_FORWARD_DEFAULT 0

/**
 * \brief It may.
 */
#define RAFTZ_FORWARD_YES 1

/**
 * \brief It may not; it refuses with RAFTZ_NOT_LEADER.
 */
#define RAFTZ_FORWARD_NO 2

/**
 * \brief What a read may see: all that was acknowledged anywhere before it began. The leader asks a quorum; no
 * clock is trusted and no disk is written.
 */
#define RAFTZ_READ_LINEARIZABLE 0

/**
 * \brief What a read may see: the same, by the clock of a leader that has a lease; see the key `lease_reads`.
 * As RAFTZ_READ_LINEARIZABLE where there is none. Unsafe where clocks may stand still, as in a virtual machine
 * that is paused or restored.
 */
#define RAFTZ_READ_LEASE 1

/**
 * \brief What a read may see: at least what the entry `index` had changed, as the outcome of a proposal names it.
 */
#define RAFTZ_READ_AT_LEAST 2

/**
 * \brief What a read may see: all that was acknowledged `max_age_ms` before it began, or earlier. Answered by any
 * node that can prove it; others ask the leader.
 */
#define RAFTZ_READ_BOUNDED 3

/**
 * \brief What a read may see: whatever this node has applied; it may be old.
 */
#define RAFTZ_READ_STALE 4

/**
 * \brief A transfer's phase: this node brings its successor up to date, and then asks it to stand.
 */
#define RAFTZ_TRANSFER_BEGUN 1

/**
 * \brief A transfer's phase: the other node leads.
 */
#define RAFTZ_TRANSFER_DONE 2

/**
 * \brief A transfer's phase: it does not.
 */
#define RAFTZ_TRANSFER_FAILED 3

/**
 * \brief An answer of the key-value store: the value is set.
 */
#define RAFTZ_KV_STORED 0

/**
 * \brief An answer of the key-value store: the key has no value (any more); `is_on`: it had one before.
 */
#define RAFTZ_KV_DELETED 1

/**
 * \brief An answer of the key-value store: the value was the expected one, and is the new one now.
 */
#define RAFTZ_KV_SWAPPED 2

/**
 * \brief An answer of the key-value store: the value was not the expected one, nothing changed; `is_on`: there
 * is one, `value`.
 */
#define RAFTZ_KV_NOT_SWAPPED 3

/**
 * \brief An answer of the key-value store: as RAFTZ_KV_NOT_SWAPPED, but the value is too large to be repeated;
 * `number` is its length.
 */
#define RAFTZ_KV_NOT_SWAPPED_LARGE 4

/**
 * \brief An answer of the key-value store: the sum after an increment, `number`.
 */
#define RAFTZ_KV_NUMBER 5

/**
 * \brief An answer of the key-value store: `is_on`: the key has a value, `value`.
 */
#define RAFTZ_KV_VALUE 6

/**
 * \brief An answer of the key-value store: `count` keys and values, see raftz_kv_reply_entry(); `is_on`: further
 * keys match.
 */
#define RAFTZ_KV_SCANNED 7

/**
 * \brief An answer of the key-value store: `count` keys, and the digest in `number`.
 */
#define RAFTZ_KV_DIGEST 8

/**
 * \brief An answer of the key-value store: it turned the command or question down; `value` says why, in words.
 */
#define RAFTZ_KV_REJECTED 9

/**
 * \brief The largest command that a simulated cluster takes, in bytes.
 */
#define RAFTZ_SIM_COMMAND_BYTES_MAX 4096

/**
 * \brief An action: make `persist.write` durable, after all earlier ones, and say so with RAFTZ_INPUT_PERSISTED. Must be
 * carried out: what the core has promised to others rests on it.
 */
#define RAFTZ_ACTION_PERSIST 1

/**
 * \brief An action: send `send.message`. It may be lost, doubled or overtaken.
 */
#define RAFTZ_ACTION_SEND 2

/**
 * \brief An action: read the entries that `read_entries` names from the program's log, and answer with
 * RAFTZ_INPUT_ENTRIES_READ.
 */
#define RAFTZ_ACTION_READ_ENTRIES 3

/**
 * \brief An action: apply the commands of `apply` to the state machine, and answer with RAFTZ_INPUT_APPLIED. One at a
 * time: none comes before the last one was answered.
 */
#define RAFTZ_ACTION_APPLY 4

/**
 * \brief An action: restore the state machine from the snapshot `snapshot_id`, of which RAFTZ_INPUT_SNAPSHOT_KEPT told,
 * and answer with RAFTZ_INPUT_RESTORED. Nothing is applied meanwhile.
 */
#define RAFTZ_ACTION_RESTORE 5

/**
 * \brief An action: fetch the snapshot that `fetch` names and its base, unless that is under way, and answer with
 * RAFTZ_INPUT_SNAPSHOT_KEPT once both are on the disk. It is asked for again until then.
 */
#define RAFTZ_ACTION_FETCH 6

/**
 * \brief An action: the commands of `accepted` are in this leader's log. One is done when RAFTZ_ACTION_APPLY gives a command of
 * its index and term. Where that index passes with another term, or without a command, it is not done and never will be.
 * Where it passes by RAFTZ_ACTION_RESTORE nobody can say.
 */
#define RAFTZ_ACTION_ACCEPTED 7

/**
 * \brief An action: the commands of `refused` are not in the log, and never will be.
 */
#define RAFTZ_ACTION_REFUSED 8

/**
 * \brief An action: a read may be answered from a machine that has applied everything up to `may_read.index`.
 */
#define RAFTZ_ACTION_MAY_READ 9

/**
 * \brief An action: nobody can say here what the read `request` must see, for this node does not lead (any more). Ask
 * the leader.
 */
#define RAFTZ_ACTION_MAY_NOT_READ 10

/**
 * \brief An action: how a transfer ended, `transfer_ended`.
 */
#define RAFTZ_ACTION_TRANSFER_ENDED 11

/**
 * \brief An action: news in `event`; may be ignored.
 */
#define RAFTZ_ACTION_EVENT 12

/**
 * \brief An action: the core has stopped because of a fault, for which `reason` has the words. Free it; what is on the
 * disk may be started from again once the reason is gone.
 */
#define RAFTZ_ACTION_HALT 13

/**
 * \brief An input: the time that raftz_core_next_deadline() asked for has come. Harmless at any time.
 */
#define RAFTZ_INPUT_TICK 1

/**
 * \brief An input: a message arrived, `receive`.
 */
#define RAFTZ_INPUT_RECEIVE 2

/**
 * \brief An input: commands are proposed, `propose`. Each is answered by RAFTZ_ACTION_ACCEPTED or RAFTZ_ACTION_REFUSED of
 * the same step.
 */
#define RAFTZ_INPUT_PROPOSE 3

/**
 * \brief An input: how much must be applied before an answer holds everything acknowledged by now? `read`. Answered by
 * one RAFTZ_ACTION_MAY_READ or RAFTZ_ACTION_MAY_NOT_READ, of this step or a later one.
 */
#define RAFTZ_INPUT_READ 4

/**
 * \brief An input: campaign now, as if the election timeout had passed.
 */
#define RAFTZ_INPUT_CAMPAIGN 5

/**
 * \brief An input: hand over the leadership, `transfer`. Answered by one RAFTZ_ACTION_TRANSFER_ENDED.
 */
#define RAFTZ_INPUT_TRANSFER 6

/**
 * \brief An input: the leader is known to be dead, from a better source than silence.
 */
#define RAFTZ_INPUT_FORGET_LEADER 7

/**
 * \brief An input: the write that `persisted` names is durable, and so are all before it.
 */
#define RAFTZ_INPUT_PERSISTED 8

/**
 * \brief An input: a write failed, for which `reason` has the words. The core halts.
 */
#define RAFTZ_INPUT_PERSIST_FAILED 9

/**
 * \brief An input: the state machine has applied everything up to `index`.
 */
#define RAFTZ_INPUT_APPLIED 10

/**
 * \brief An input: the answer to RAFTZ_ACTION_READ_ENTRIES, `entries_read`. A late one is nothing.
 */
#define RAFTZ_INPUT_ENTRIES_READ 11

/**
 * \brief An input: a snapshot is whole on this node's disk, with its base, `snapshot`: one of its own, or a fetched one.
 */
#define RAFTZ_INPUT_SNAPSHOT_KEPT 12

/**
 * \brief An input: the snapshot `snapshot_id` turned out to be damaged, or is gone. It is offered to nobody any more.
 */
#define RAFTZ_INPUT_SNAPSHOT_LOST 13

/**
 * \brief An input: the log may begin behind `index`, or as near to it as the newest snapshot allows.
 */
#define RAFTZ_INPUT_COMPACT 14

/**
 * \brief An input: the state machine is what RAFTZ_ACTION_RESTORE asked for, `snapshot_id`.
 */
#define RAFTZ_INPUT_RESTORED 15

/**
 * \brief An input: a link to a peer came up, `link_up`. What was on its way over an older one is lost.
 */
#define RAFTZ_INPUT_LINK_UP 16

/**
 * \brief An input: the last link to the peer `peer_id` is gone.
 */
#define RAFTZ_INPUT_LINK_DOWN 17

/**
 * \brief An input: room for the log is running out (`is_full` not 0), or there is some again (0). Commands are refused
 * meanwhile.
 */
#define RAFTZ_INPUT_STORAGE_FULL 18

/**
 * \brief In raftz_core_opts' flags: the state machine persists itself, and has in its own storage what `machine_applied`
 * says. Nothing is handed to it before it is on this node's own disk.
 */
#define RAFTZ_CORE_MACHINE_PERSISTS 1

/**
 * \brief In raftz_core_opts' flags: the disk is empty, and the core is a founder of a cluster that is new. Said once in the
 * life of a cluster: a core that loses its disk must not come back as if it had never voted.
 */
#define RAFTZ_CORE_FOUNDS 2

/**
 * \brief Bytes of one's own: what the library gives, or what a program hands over without a copy.
 */
typedef struct raftz_bytes raftz_bytes;

/**
 * \brief Takes the completions of one open store, with raftz_storage_complete().
 *
 * It is there from the call of the store's `open` until its `destroy` has returned; if `open` fails, until that
 * returns.
 */
typedef struct raftz_completions raftz_completions;

/**
 * \brief A node's configuration: an object that a program fills, starts nodes with, and frees.
 *
 * One thread at a time. raftz_node_start() copies what it needs, so that one configuration can be changed
 * and used again.
 *
 * Keys, what they mean, and their defaults:
 *
 * - `node_id`, `cluster_id`: as given to raftz_config_new().
 * - `listen_address`: `host:port`; 127.0.0.1:0.
 * - `founders`: founding members, `1=host:port,2=host:port`; none.
 * - `storage`: `memory` or `directory:path`, or `custom` after raftz_config_set_storage(); memory.
 * - `snapshot_directory`: where a node with a store of the program's own keeps its snapshots; made if it is not
 *   there, and one node's alone. Empty: it takes none, and its log is never shortened. Other stores keep them beside
 *   the log; empty.
 * - `insecure_plaintext`: allows addresses beyond this machine, although links are not encrypted; false.
 * - `election_timeout_min_ms`, `election_timeout_max_ms`: time without a sign of a leader after which a
 *   node stands for election; each wait is drawn between the two; 150 and 300.
 * - `heartbeat_interval_ms`: time between a leader's signs of life; 50.
 * - `election_priority`: how much the node is wanted as leader, 0 to 100: at 0 it waits twice as long as others
 *   before it stands, and a leader hands over to a node whose priority is higher by 10; 100.
 * - `disk_stall_timeout_ms`: a leader none of whose writes has become durable for so long, while one waits, hands
 *   over; 0 is the longest election timeout; 0.
 * - `propose_timeout_ms`: time after which a command without a timeout of its own is answered; 5000.
 * - `read_timeout_ms`: time after which a read without a timeout of its own is answered; 5000.
 * - `lease_reads`: whether clocks are trusted, for reads of level RAFTZ_READ_LEASE; set it on all nodes; false.
 * - `lease_drift_percent`: by how much any clock may run faster than another, at most 50; 10.
 * - `forward`: whether a follower hands commands to the leader, and holds them while there is none; true.
 * - `entry_bytes_max`: largest command; fixed when the cluster is founded; 4 MiB.
 * - `append_bytes_max`: most bytes of entries in one message; 1 MiB.
 * - `window_bytes`, `window_messages`: most that is on its way to one peer; 8 MiB and 64.
 * - `uncommitted_bytes_max`: most bytes of entries that a leader holds uncommitted; 64 MiB.
 * - `unapplied_bytes_max`: most bytes of entries that are committed and not applied; 64 MiB.
 * - `cache_bytes_max`: most bytes of applied entries in memory for followers that lag; 16 MiB.
 * - `held_bytes_max`: most bytes of commands held while no leader is known; 16 MiB.
 * - `apply_bytes_max`: most bytes of commands given to the state machine at once; 4 MiB.
 * - `calls_max`, `calls_bytes_max`: most calls in flight, and their bytes; 65536 and 128 MiB.
 * - `link_queue_bytes_max`: most bytes that wait to be sent to one peer; 32 MiB.
 * - `segment_bytes`: size of one file of the log; 64 MiB.
 * - `reserve_bytes`: free disk space below which commands are refused; 256 MiB.
 * - `snapshot_log_bytes`, `snapshot_log_entries`: a snapshot is taken after about so many bytes of applied
 *   commands, or entries; 0 for neither; 64 MiB and 1000000.
 * - `snapshot_retain_bytes`: bytes of the log kept behind it for followers that are a little behind; 16 MiB.
 * - `snapshots_kept`: how many snapshots stay on disk; 2.
 * - `snapshot_write_bytes_per_s`, `snapshot_send_bytes_per_s`: how fast one is written, and snapshots are sent
 *   to all peers together; 0 for no bound; 128 MiB and 32 MiB.
 * - `snapshot_stall_timeout_ms`: a transfer that has not moved for so long begins again; 10000.
 * - `snapshot_scrub_interval_ms`: so often all snapshots on the disk are read for damage; 86400000, 0: never.
 * - `metrics`: whether raftz_metrics() and raftz_metrics_text() have something to tell; true.
 * - `seed`: of the randomness that spreads elections, or `random`; random.
 */
typedef struct raftz_config raftz_config;

/**
 * \brief One member's part in the consensus of its cluster, as an object that does nothing by itself: a program tells
 * it what happened, one input at a time, and it answers with actions for the program to carry out.
 *
 * It has no thread, reads no clock, and touches no file and no socket. The same inputs at the same times give the same
 * actions, so that whole clusters can be run in one thread and in any order.
 *
 * What the program owes it:
 *
 * - RAFTZ_ACTION_PERSIST is carried out in order: a later write is never on the disk without an earlier one, and each is
 *   there whole or not at all. RAFTZ_INPUT_PERSISTED is said only when a power cut cannot take the write back, and
 *   RAFTZ_INPUT_SNAPSHOT_KEPT only when it cannot take the snapshot. Safety rests on that. Nothing else that comes of a step
 *   has to wait for its writes: what must, the core keeps back.
 * - RAFTZ_ACTION_APPLY and RAFTZ_ACTION_RESTORE are answered when they are done.
 * - RAFTZ_INPUT_TICK comes when raftz_core_next_deadline() says so, soon enough.
 * - Messages that arrive are from whom the program says. They may be lost, doubled or overtaken.
 * - Of one disk there is one core, also among processes. After a restart it begins with all that the disk holds; one whose
 *   disk is lost does not come back under its old id.
 *
 * Threads: one at a time. A call beside another one on the same core is refused with RAFTZ_BUSY.
 */
typedef struct raftz_core raftz_core;

/**
 * \brief Takes the entries that a store reads.
 */
typedef struct raftz_entries raftz_entries;

/**
 * \brief Why a call failed, in detail.
 *
 * Functions that can fail take a last argument `raftz_error **error`. It may be NULL. If the call fails
 * and it is not, a new object is written there, to be freed with raftz_error_free(). If the call
 * succeeds nothing is written, so set it to NULL beforehand.
 */
typedef struct raftz_error raftz_error;

/**
 * \brief Something taken from a queue: a completion or an event of a node.
 */
typedef struct raftz_event raftz_event;

/**
 * \brief An answer of the key-value store.
 */
typedef struct raftz_kv_reply raftz_kv_reply;

/**
 * \brief What a program's transport tells a node with: of links, and of what arrives on them.
 *
 * It is the program's own from an `open` that succeeds, to be freed with raftz_links_free() when none of its threads uses
 * it any more. Once the node has ended every call is RAFTZ_SHUT_DOWN. If `open` fails it is gone when that returns.
 */
typedef struct raftz_links raftz_links;

/**
 * \brief A network within this process, for tests: nodes that are started in it reach each other without
 * ports.
 */
typedef struct raftz_network raftz_network;

/**
 * \brief A running node: one member of one cluster, with its storage, its network and its state machine.
 *
 * Any number of threads may use it at once. raftz_node_free() must be the last call.
 */
typedef struct raftz_node raftz_node;

/**
 * \brief A queue into which completions and events of any number of nodes are put, and from which a
 * program takes them: an event loop that waits for raftz_queue_fd(), or a thread that blocks.
 */
typedef struct raftz_queue raftz_queue;

/**
 * \brief Takes the answers to a batch of commands: exactly one for each, in their order.
 */
typedef struct raftz_replies raftz_replies;

/**
 * \brief Answers the questions of a workload: all that is random in a command comes from here, so that a seed
 * repeats it.
 */
typedef struct raftz_sim_chooser raftz_sim_chooser;

/**
 * \brief What became of a simulated run.
 */
typedef struct raftz_sim_report raftz_sim_report;

/**
 * \brief Takes bytes from a callback.
 */
typedef struct raftz_sink raftz_sink;

/**
 * \brief Gives a callback the bytes of a snapshot, from the front.
 */
typedef struct raftz_source raftz_source;

/**
 * \brief How a node was when it was asked.
 */
typedef struct raftz_state raftz_state;

/**
 * \brief How a call ended: RAFTZ_OK, or a negative number that says why not.
 *
 * Numbers are never reused. A number that a program does not know comes from a later version of the
 * library; treat one between -32 and -63 as "outcome unknown" and any other as a failure.
 */
typedef int32_t raftz_status;

/**
 * \brief Bytes that somebody else owns.
 *
 * As an argument: read during the call, copied where they are needed for longer. As a result: see the
 * function for how long they live. With `len` 0 `data` may be anything.
 */
typedef struct raftz_slice {
    /**
     * \brief The first byte.
     */
    const uint8_t *data;
    /**
     * \brief How many.
     */
    size_t len;
} raftz_slice;

/**
 * \brief Frees memory that was handed over with raftz_bytes_wrap(). Called exactly once.
 *
 * Threads: any, a node's own included. Blocking calls of raftz are refused in it.
 */
typedef void (*raftz_free_fn)(void *context);

/**
 * \brief One entry of the log, for a store to keep. The layout of this struct is frozen.
 */
typedef struct raftz_log_entry {
    /**
     * \brief Its number. Within a group every number is there once, without gaps.
     */
    uint64_t index;
    /**
     * \brief The term in which it was appended; for information, it is in `bytes` as well.
     */
    uint64_t term;
    /**
     * \brief All of it, with checksums: to be given back exactly like this.
     */
    struct raftz_slice bytes;
} raftz_log_entry;

/**
 * \brief What a submission changes of one group. The layout of this struct is frozen.
 *
 * It takes effect whole or not at all, whatever happens meanwhile: first the removals, then `entries`, together with
 * `record`.
 */
typedef struct raftz_log_write {
    /**
     * \brief The group.
     */
    uint32_t group;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief Replaces the group's record: to be given back exactly like this.
     */
    struct raftz_slice record;
    /**
     * \brief Entries at and above this index are removed; 0 for none.
     */
    uint64_t remove_from;
    /**
     * \brief Entries at and below this index are removed; 0 for none.
     */
    uint64_t remove_upto;
    /**
     * \brief Entries to be added, in order; none of these indexes is there after the removals.
     */
    const struct raftz_log_entry *entries;
    /**
     * \brief How many.
     */
    size_t entry_count;
} raftz_log_write;

/**
 * \brief A store of the program's own for what a node must not lose: its log, its term and its vote.
 *
 * A store keeps, for each group, one record and a run of numbered entries. Both are bytes that it does not look into;
 * what is given back changed, cut short or mixed up is found out by checksums, and never used. Put a store through
 * raftz_storage_conformance() before any node uses it.
 *
 * Set `size` to `sizeof(raftz_storage)` and `abi_version` to RAFTZ_ABI_VERSION; what is not needed is NULL. The struct
 * is copied by raftz_config_set_storage(); `user_data` must be there as long as the configuration and the nodes that
 * were started with it.
 *
 * `open`, `load` and `destroy` are called alone. Of an open store `submit`, `idle`, `is_low_on_space`, `log_bytes` and
 * `close` are called from one thread at a time, never at once. `read` is called from one thread at a time as well, but
 * beside all of these. Functions must return: no longjmp, no C++ exception, no end of the thread. Blocking calls of
 * raftz are refused in them.
 *
 * The whole log is read once when a node starts. If entries are missing then, or garbage, the node starts without them
 * and does not stand for election until the leader has given them to it anew. If the record is, or if the node is alone
 * in its cluster, it does not start. One record is written; if that is not completed within 30 seconds the start fails.
 *
 * Snapshots are files all the same: in the directory that the key `snapshot_directory` names. Without it a node with
 * such a store takes none, its log is never shortened, and nobody can bring it back by one.
 */
typedef struct raftz_storage {
    /**
     * \brief `sizeof(raftz_storage)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_ABI_VERSION.
     */
    uint32_t abi_version;
    /**
     * \brief RAFTZ_STORAGE_…, or 0.
     */
    uint32_t flags;
    /**
     * \brief Given to `open`.
     */
    void *user_data;
    /**
     * \brief Opens the store, with all that was completed in earlier lives; one that is new is empty. Required.
     *
     * `completions` is what raftz_storage_complete() is called with. A status other than RAFTZ_OK, with words by
     * raftz_sink_fail() on `why`, makes raftz_node_start() fail; `destroy` is not called then. It should refuse while
     * the store is open, in this process or another.
     */
    raftz_status (*open)(void *user_data,
                         struct raftz_completions *completions,
                         struct raftz_sink *why,
                         void **store);
    /**
     * \brief Ends a store. Called exactly once for every `open` that succeeded, after the last call of any other
     * function; submissions that were not completed then have failed. Threads of the store must have ended when it
     * returns. Optional.
     */
    void (*destroy)(void *store);
    /**
     * \brief Writes the group's record, as it was last given, with raftz_sink_write(); nothing if there is none. A
     * status other than RAFTZ_OK, with words by raftz_sink_fail(), makes the start fail. Required.
     */
    raftz_status (*load)(void *store, uint32_t group, struct raftz_sink *record);
    /**
     * \brief Makes writes durable, each of another group, and says so with raftz_storage_complete() and `number`:
     * before it returns or later, from any thread, once for every call. Required.
     *
     * Writes take effect in the order of the calls: what is there after a power cut never has a later one without an
     * earlier one. `writes`, and all that it points to, stay until they are completed, or `destroy` returns.
     *
     * A store that only lacks room may keep writes, and all behind them, until there is some, while `is_low_on_space`
     * says so.
     */
    void (*submit)(void *store, const struct raftz_log_write *writes, size_t count, uint64_t number);
    /**
     * \brief Gives the entries from `first` to `last`, in order, with raftz_entries_push(), until that wants no more.
     * It may end early where an entry is missing. Required.
     *
     * Entries that are asked for were completed, and are not removed meanwhile unless what is read is of no more use. A
     * status other than RAFTZ_OK, with words by raftz_entries_fail(), is a failed read: the node tells of it, tries
     * elsewhere if it can, and stops with a fault if it needs the entries itself.
     */
    raftz_status (*read)(void *store,
                         uint32_t group,
                         uint64_t first,
                         uint64_t last,
                         struct raftz_entries *entries);
    /**
     * \brief Called once whenever nothing was submitted for 50 milliseconds. A status other than RAFTZ_OK, with words by
     * raftz_sink_fail(), means that nothing can be written any more. Optional.
     */
    raftz_status (*idle)(void *store, struct raftz_sink *why);
    /**
     * \brief Whether room is running out: not 0 if it is. Commands are refused then, votes go on. It is asked after
     * every submission and now and then, and must be quick. Optional: there is always room.
     */
    uint32_t (*is_low_on_space)(void *store);
    /**
     * \brief How many bytes the log takes, for metrics. As often as `is_low_on_space`, and as quick. Optional.
     */
    uint64_t (*log_bytes)(void *store);
    /**
     * \brief Called once at a clean stop, before `destroy`, when nothing is submitted any more. A status other than
     * RAFTZ_OK, with words by raftz_sink_fail(), is logged. Optional.
     */
    raftz_status (*close)(void *store, struct raftz_sink *why);
} raftz_storage;

/**
 * \brief A message to be sent. The layout of this struct is frozen.
 */
typedef struct raftz_message {
    /**
     * \brief RAFTZ_MESSAGE_…
     */
    uint32_t urgency;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief All its bytes.
     */
    size_t len;
    /**
     * \brief Where they lie, one part behind the other.
     */
    const struct raftz_slice *parts;
    /**
     * \brief How many parts; at least one.
     */
    size_t part_count;
} raftz_message;

/**
 * \brief A transport of the program's own: what carries messages between nodes, in place of TCP.
 *
 * A transport knows links and messages. A link leads to one other node, in both directions, and the program sets it up
 * in any way: when it has reached a node, or somebody has come, it says so with raftz_links_up(). From then on raftz
 * sends messages on it, and the program gives those that arrive to raftz_links_deliver(), each whole and as it was sent.
 * The first ones are a handshake, in which nodes judge each other as over TCP: by cluster, epoch, data directory,
 * founders. A link that fails, is replaced by another one of the same two nodes, or on which nothing is heard or taken
 * for six seconds is ended by raftz, with words.
 *
 * Messages may be lost; raftz sends again what is needed. What comes late, twice or on a wrong link is left out, and what
 * was changed on its way is found out, which ends the link. Those of one urgency should keep their order, since what is
 * overtaken counts as lost; one that is more urgent may overtake others, and bulk may take a way of its own.
 *
 * What this does not give: nobody is prevented from reading along, and what a peer says of itself is not proven. Whoever
 * can reach the program's links can claim to be a node, as over plain TCP. Encryption, and the proof of who is at the
 * other end, are the program's business.
 *
 * Set `size` to `sizeof(raftz_transport)` and `abi_version` to RAFTZ_ABI_VERSION; what is not needed is NULL. The struct
 * is copied by raftz_config_set_transport(); `user_data` must be there as long as the configuration and the nodes that
 * were started with it.
 *
 * `open` is called alone. `dial`, `send` and `end` are called on one thread of the node's own that does nothing else, one
 * at a time. While one of them blocks nothing is sent to anybody: `dial` should leave what takes time to another thread,
 * and `send` take less. `stop` may be called beside them. `destroy` is called alone, and last. Functions must return: no
 * longjmp, no C++ exception, no end of the thread. Blocking calls of raftz are refused in them.
 *
 * The addresses of the nodes are the program's to read: of the form `host:port`, with a port from 1 to 65535 and as host
 * anything without a colon, blank, comma or equals sign, such as a path. An IP address beyond this machine needs
 * `insecure_plaintext` here, too. `listen_address` is not used.
 */
typedef struct raftz_transport {
    /**
     * \brief `sizeof(raftz_transport)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_ABI_VERSION.
     */
    uint32_t abi_version;
    /**
     * \brief 0.
     */
    uint32_t flags;
    /**
     * \brief Given to `open`.
     */
    void *user_data;
    /**
     * \brief Opens the transport for one node. Required.
     *
     * `links` is what raftz_links_up() and its sisters are called with, from now on. A status other than RAFTZ_OK, with
     * words by raftz_sink_fail() on `why`, makes raftz_node_start() fail; nothing else is called then.
     */
    raftz_status (*open)(void *user_data,
                         struct raftz_links *links,
                         struct raftz_sink *why,
                         void **transport);
    /**
     * \brief Ends a transport. Called exactly once for every `open` that succeeded, after the last call of any other
     * function. Optional.
     */
    void (*destroy)(void *transport);
    /**
     * \brief Tries to reach a node, once: the program answers with raftz_links_up() or raftz_links_unreachable(), now or
     * later. `address`, in UTF-8 and not ended by NUL, lives until it returns.
     *
     * It is called for the members of the cluster as long as there is no link to them: again after an answer that it
     * failed, with pauses that grow, and after three seconds without an answer. If two nodes dial each other at once,
     * raftz keeps one of the links. Optional, for transports that dial by themselves.
     */
    void (*dial)(void *transport, uint64_t peer_id, struct raftz_slice address);
    /**
     * \brief Sends messages on a link, in their order. Required.
     *
     * `taken` says how many of them, from the front, were taken; it is `count` unless the program writes another number.
     * The rest is given again after raftz_links_ready(). Messages that were taken have been sent or copied: they, and what
     * they point to, live until it returns. What waits to be taken is bounded by `link_queue_bytes_max` for each link;
     * beyond it raftz sends later what is still needed then.
     *
     * A status other than RAFTZ_OK, with words by raftz_sink_fail() on `why`, ends the link.
     */
    raftz_status (*send)(void *transport,
                         void *link_context,
                         const struct raftz_message *messages,
                         size_t count,
                         size_t *taken,
                         struct raftz_sink *why);
    /**
     * \brief Ends a link: it is of no more use, and what `reason` says in UTF-8 is why. Called exactly once for every
     * raftz_links_up() that succeeded, also if the program said raftz_links_down(); nothing is called with its context
     * afterwards. What was taken should still be sent: a refused node is told why. Required.
     */
    void (*end)(void *transport, void *link_context, struct raftz_slice reason);
    /**
     * \brief The node stops: a function that blocks is to return, and none is to block from now on. Called once, beside
     * the others, before all links are ended. A transport that blocks for longer holds up raftz_node_stop(), which says
     * RAFTZ_STILL_RUNNING then. Optional.
     */
    void (*stop)(void *transport);
} raftz_transport;

/**
 * \brief How a command ended. The layout of this struct is frozen.
 */
typedef struct raftz_outcome {
    /**
     * \brief RAFTZ_OK: committed and applied; otherwise why not.
     */
    raftz_status status;
    /**
     * \brief RAFTZ_OUTCOME_REJECTED, RAFTZ_OUTCOME_UNKNOWN.
     */
    uint32_t flags;
    /**
     * \brief Index of its entry, once done.
     */
    uint64_t index;
    /**
     * \brief Term of its entry, once done.
     */
    uint64_t term;
    /**
     * \brief With RAFTZ_NOT_LEADER and RAFTZ_TRANSFER_OVERTAKEN, and of a transfer that is done: who leads, as far
     * as is known; else 0.
     */
    uint64_t leader_id;
    /**
     * \brief What the state machine answered, once done.
     */
    struct raftz_slice reply;
    /**
     * \brief Why it was not done, in words of UTF-8 without NUL at the end.
     */
    struct raftz_slice message;
    /**
     * \brief Zero.
     */
    uint64_t reserved[2];
} raftz_outcome;

/**
 * \brief What an event says. Which fields mean something depends on its kind; the others are zero.
 *
 * In a callback `size` is what the library has; for raftz_event_get() set it to
 * `sizeof(raftz_event_info)`.
 */
typedef struct raftz_event_info {
    /**
     * \brief Bytes of this struct.
     */
    size_t size;
    /**
     * \brief RAFTZ_EVENT_…; a later version may tell of kinds that are unknown to the program.
     */
    uint32_t kind;
    /**
     * \brief The group, for hosts of several; 1 today.
     */
    uint32_t group;
    /**
     * \brief The node that tells.
     */
    uint64_t node_id;
    /**
     * \brief A term.
     */
    uint64_t term;
    /**
     * \brief An index of the log.
     */
    uint64_t index;
    /**
     * \brief Another node; 0 for none.
     */
    uint64_t peer_id;
    /**
     * \brief RAFTZ_ROLE_…
     */
    uint32_t role;
    /**
     * \brief 1 or 0.
     */
    uint32_t is_on;
    /**
     * \brief Words in UTF-8, without NUL at the end. They live as long as the event, or until the callback
     * returns.
     */
    struct raftz_slice text;
    /**
     * \brief Of a completion: the user data that the call was given.
     */
    void *user_data;
    /**
     * \brief Of a completion: how the calls ended, in their order; they live as long as the event.
     */
    const struct raftz_outcome *outcomes;
    /**
     * \brief How many outcomes there are.
     */
    size_t outcome_count;
    /**
     * \brief RAFTZ_SNAPSHOT_… or RAFTZ_TRANSFER_…
     */
    uint32_t phase;
    /**
     * \brief Reserved: 0.
     */
    uint32_t reserved;
    /**
     * \brief Bytes that are through.
     */
    uint64_t bytes;
    /**
     * \brief All bytes.
     */
    uint64_t total_bytes;
    /**
     * \brief How many.
     */
    uint64_t count;
} raftz_event_info;

/**
 * \brief Takes an event of a node.
 *
 * While it is busy, events that tell of a state (role, leader, readiness, membership, the link to one peer, progress of
 * one transfer, disk space, a fault) replace each other, so that the latest is never missed. At most 4096 others wait;
 * how many were dropped is told as RAFTZ_EVENT_DROPPED.
 *
 * Threads: the node's callback thread, one event at a time; nodes started with one configuration call it at
 * once. Blocking calls of raftz are refused in it.
 *
 * \param user_data What raftz_config_set_event_callback() was given.
 * \param event The event; it lives until the function returns.
 */
typedef void (*raftz_event_fn)(void *user_data, const struct raftz_event_info *event);

/**
 * \brief Called once when a callback's user data is not needed any more.
 *
 * Threads: any, the node's own included. Blocking calls of raftz are refused in it. A configuration or node
 * that is being freed must not be used in it.
 */
typedef void (*raftz_destroy_fn)(void *user_data);

/**
 * \brief Takes a log line of a node.
 *
 * Threads: the node's own, one or more at once. Blocking calls of raftz are refused in it.
 *
 * \param user_data What raftz_config_set_log() was given.
 * \param level RAFTZ_LOG_ERROR to RAFTZ_LOG_TRACE.
 * \param line The line, without an end of line, in UTF-8: a sentence, then fields as ` name=value`, such as `node`,
 *        `group`, `peer`, `term` and `index`. It lives until the function returns.
 */
typedef void (*raftz_log_fn)(void *user_data, uint32_t level, struct raftz_slice line);

/**
 * \brief How a queue is to be. All zero, but for the size, is the default.
 */
typedef struct raftz_queue_opts {
    /**
     * \brief Set it to `sizeof(raftz_queue_opts)`.
     */
    size_t size;
    /**
     * \brief Most calls that may be under way or wait to be taken; beyond it new ones are refused with
     * RAFTZ_BUSY. 0: 65536.
     */
    uint64_t calls_max;
    /**
     * \brief Most events of nodes that may wait to be taken; beyond it the newest are dropped, counted and told of
     * by RAFTZ_EVENT_DROPPED. Of events that tell of a state (role, leader, readiness, membership, the link to
     * one peer, progress of one transfer, disk space, a fault) only the latest waits, and is not dropped. 0: 4096.
     */
    uint64_t events_max;
} raftz_queue_opts;

/**
 * \brief How a store is put to the test. All zero, but for the size, is the default.
 */
typedef struct raftz_conformance_opts {
    /**
     * \brief Set it to `sizeof(raftz_conformance_opts)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_CONFORMANCE_…, or 0.
     */
    uint32_t flags;
    /**
     * \brief How long one submission may take, in milliseconds; 0 for 10000.
     */
    uint32_t patience_ms;
} raftz_conformance_opts;

/**
 * \brief How often something happened that took time, and how long all of it took.
 */
typedef struct raftz_times {
    /**
     * \brief How often.
     */
    uint64_t count;
    /**
     * \brief How long all of it took, in microseconds.
     */
    uint64_t sum_us;
    /**
     * \brief A bound that half of it did not exceed, in microseconds; 0 if nothing happened.
     */
    uint64_t p50_us;
    /**
     * \brief Likewise for 99 of 100; UINT64_MAX: more than a minute.
     */
    uint64_t p99_us;
} raftz_times;

/**
 * \brief What a node has counted and measured since it was started.
 *
 * Each number by itself is right; together they need not belong to one moment. raftz_metrics_text() has more:
 * results, reasons, levels, and histograms.
 */
typedef struct raftz_metrics_info {
    /**
     * \brief Set it to `sizeof(raftz_metrics_info)`.
     */
    size_t size;
    /**
     * \brief The node.
     */
    uint64_t node_id;
    /**
     * \brief The leader that it knows; 0 for none.
     */
    uint64_t leader_id;
    /**
     * \brief Its term.
     */
    uint64_t term;
    /**
     * \brief How often a leader became known that was not known before, itself included.
     */
    uint64_t leader_changes;
    /**
     * \brief Elections in which it stood and won.
     */
    uint64_t elections_won;
    /**
     * \brief Elections in which it stood and did not win, for whatever reason.
     */
    uint64_t elections_not_won;
    /**
     * \brief Everything up to here is known to be committed.
     */
    uint64_t commit_index;
    /**
     * \brief Everything up to here is applied.
     */
    uint64_t applied_index;
    /**
     * \brief The last entry of its log.
     */
    uint64_t last_index;
    /**
     * \brief The first entry of its log.
     */
    uint64_t first_index;
    /**
     * \brief Commands of this node's callers that have not ended.
     */
    uint64_t proposals_pending;
    /**
     * \brief Those that were done.
     */
    uint64_t proposals_committed;
    /**
     * \brief Those that were refused, or ended as unknown.
     */
    uint64_t proposals_failed;
    /**
     * \brief From a command to its end.
     */
    struct raftz_times propose;
    /**
     * \brief On a leader, from the append of a batch to its commit.
     */
    struct raftz_times commit;
    /**
     * \brief One write of the log, its sync included; nothing for memory storage.
     */
    struct raftz_times wal_fsync;
    /**
     * \brief One batch in the state machine.
     */
    struct raftz_times apply_batch;
    /**
     * \brief Entries that were written to the log.
     */
    uint64_t entries_written;
    /**
     * \brief In so many writes.
     */
    uint64_t writes;
    /**
     * \brief Age of the oldest entry of the log, roughly, in microseconds; 0 if it is not known.
     */
    uint64_t oldest_log_entry_us;
    /**
     * \brief What the log takes on disk; 0 for memory storage.
     */
    uint64_t wal_bytes;
    /**
     * \brief Events that the node's observer will never see, because it was busy for too long.
     */
    uint64_t events_dropped;
    /**
     * \brief Reads, of all levels.
     */
    uint64_t reads;
} raftz_metrics_info;

/**
 * \brief What a node has measured of another member.
 */
typedef struct raftz_peer_metrics_info {
    /**
     * \brief Set it to `sizeof(raftz_peer_metrics_info)`.
     */
    size_t size;
    /**
     * \brief The member.
     */
    uint64_t node_id;
    /**
     * \brief 1 if the node leads, and so knows how far the member is; the next five are 0 elsewhere.
     */
    uint32_t is_led;
    /**
     * \brief RAFTZ_SNAPSHOT_SENDING or RAFTZ_SNAPSHOT_FETCHING while a snapshot is on its way; else 0.
     */
    uint32_t snapshot_phase;
    /**
     * \brief Its log equals the leader's up to here, durably.
     */
    uint64_t match_index;
    /**
     * \brief Entries of the leader's log that it is not known to have.
     */
    uint64_t lag_entries;
    /**
     * \brief Time since its last answer, in microseconds.
     */
    uint64_t last_contact_us;
    /**
     * \brief Appends on their way to it.
     */
    uint64_t inflight;
    /**
     * \brief What its last answer to a heartbeat took, there and back, in microseconds; 0 if there was none.
     */
    uint64_t rtt_us;
    /**
     * \brief Bytes of that snapshot that are through; else 0.
     */
    uint64_t snapshot_bytes;
    /**
     * \brief All its bytes; else 0.
     */
    uint64_t snapshot_total_bytes;
} raftz_peer_metrics_info;

/**
 * \brief One committed command, in the order of the log. The layout of this struct is frozen.
 */
typedef struct raftz_command {
    /**
     * \brief Index of its entry. Indexes grow but have gaps: not every entry is a command.
     */
    uint64_t index;
    /**
     * \brief Term of its entry.
     */
    uint64_t term;
    /**
     * \brief The cluster's clock when it was appended, in microseconds; it never decreases.
     */
    uint64_t log_time_us;
    /**
     * \brief The bytes that were proposed.
     */
    struct raftz_slice data;
} raftz_command;

/**
 * \brief A deterministic state machine: what the cluster keeps one copy of on every node.
 *
 * Everything it does must follow from the commands alone: no clock, no randomness, nothing of the machine
 * it runs on. Set `size` to `sizeof(raftz_machine)` and `abi_version` to RAFTZ_ABI_VERSION; what is not
 * needed is NULL. The struct is copied by raftz_node_start().
 *
 * All functions are called from one thread at a time, never at once, except `snapshot_read` and
 * `snapshot_end`, which run beside them. A status other than RAFTZ_OK from `apply` or `restore`
 * stops this replica with an event and a fault in its status; the process goes on, and the other nodes do.
 * Functions must return: no longjmp, no C++ exception, no end of the thread. Blocking calls of raftz are
 * refused in them. A function that fails says why in words: `apply` with raftz_replies_fail(), all others with
 * raftz_sink_fail() on the sink that they are given, which is only there for that where it is called `why`.
 */
typedef struct raftz_machine {
    /**
     * \brief `sizeof(raftz_machine)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_ABI_VERSION.
     */
    uint32_t abi_version;
    /**
     * \brief RAFTZ_MACHINE_…, or 0.
     */
    uint32_t flags;
    /**
     * \brief Given to `create`; or, without `create`, the machine itself.
     */
    void *user_data;
    /**
     * \brief Makes the machine of a node. NULL: `user_data` is the machine.
     *
     * A status other than RAFTZ_OK makes raftz_node_start() fail; `destroy` is not called then.
     */
    raftz_status (*create)(void *user_data, struct raftz_sink *why, void **machine);
    /**
     * \brief Ends a machine. Called exactly once for every machine that was created, after the last call of
     * any other function; without `create` once for every raftz_node_start() that took the struct. Optional.
     *
     * raftz_node_start() takes the struct unless it returns RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG,
     * RAFTZ_UNSUPPORTED or RAFTZ_FORKED.
     */
    void (*destroy)(void *machine);
    /**
     * \brief Applies commands in order and answers each, with raftz_replies_push() or
     * raftz_replies_reject(). Required.
     */
    raftz_status (*apply)(void *machine,
                          const struct raftz_command *commands,
                          size_t count,
                          struct raftz_replies *replies);
    /**
     * \brief Answers a question from the present state, with raftz_sink_write(), without changing it.
     * A status other than RAFTZ_OK is told to the asker; the replica goes on. Optional.
     */
    raftz_status (*query)(void *machine, struct raftz_slice request, struct raftz_sink *reply);
    /**
     * \brief Freezes the present state, quickly: it is read later, while commands go on. The functions for
     * snapshots come all four or none.
     */
    raftz_status (*snapshot_begin)(void *machine, struct raftz_sink *why, void **snapshot);
    /**
     * \brief Writes the next piece of a frozen state, of any size, with raftz_sink_write(). It is called until it
     * writes nothing.
     */
    raftz_status (*snapshot_read)(void *snapshot, struct raftz_sink *piece);
    /**
     * \brief Ends a frozen state. Called exactly once for every `snapshot_begin` that succeeded.
     */
    void (*snapshot_end)(void *snapshot);
    /**
     * \brief Replaces the whole state by what `snapshot_read` wrote, on this or another node. It may be called
     * again with the same content.
     */
    raftz_status (*restore)(void *machine, struct raftz_source *source, struct raftz_sink *why);
    /**
     * \brief For a machine that persists itself: the index of the last command in its own storage, stored there
     * at once with what the command did; 0 while there is none. Asked once, after `create`. Commands up to there are
     * not applied again, and none is applied before it is on this node's own disk. NULL: the machine is
     * rebuilt from the log at every start.
     *
     * raftz_node_start() fails with RAFTZ_MACHINE if the log ends before that index.
     */
    raftz_status (*applied_index)(void *machine, struct raftz_sink *why, uint64_t *index);
} raftz_machine;

/**
 * \brief How a node is started. All zero, but for the size, is the default.
 */
typedef struct raftz_start_opts {
    /**
     * \brief Set it to `sizeof(raftz_start_opts)`.
     */
    size_t size;
    /**
     * \brief Which machine it keeps, if it is none of the program's own: RAFTZ_BUILTIN_…
     */
    uint32_t builtin;
    /**
     * \brief A listening TCP socket that the program has bound already; taken over, whether the start
     * succeeds or fails, unless this struct's `size` is wrong or too new. Bind it with SO_REUSEADDR, so that the port can be had again after a restart. 0:
     * `listen_address` of the configuration.
     */
    int32_t listen_fd;
    /**
     * \brief A network within this process, instead of TCP; not with `listen_fd`. NULL: TCP. Neither goes with
     * raftz_config_set_transport().
     */
    const struct raftz_network *network;
} raftz_start_opts;

/**
 * \brief How a command is to be treated. All zero, but for the size, is the default.
 */
typedef struct raftz_propose_opts {
    /**
     * \brief Set it to `sizeof(raftz_propose_opts)`.
     */
    size_t size;
    /**
     * \brief Time after which the command is answered, in milliseconds. 0: `propose_timeout_ms` of the
     * configuration.
     */
    uint32_t timeout_ms;
    /**
     * \brief RAFTZ_FORWARD_…
     */
    uint32_t forward;
    /**
     * \brief The term in which this node must lead when it takes the command, so that what the program has
     * learnt in that term still holds; otherwise RAFTZ_TERM_MISMATCH. 0: any.
     */
    uint64_t expected_term;
} raftz_propose_opts;

/**
 * \brief Is told how a command ended. Called exactly once for every command that was accepted.
 *
 * Threads: the node's callback thread, one call at a time. Blocking calls of raftz are refused in it;
 * proposing more is welcome, as long as the node is not being freed.
 *
 * \param user_data What the call was given.
 * \param outcome How it ended; it lives until the function returns.
 */
typedef void (*raftz_done_fn)(void *user_data, const struct raftz_outcome *outcome);

/**
 * \brief Is told how the commands of a batch ended. Called exactly once for every batch that was accepted.
 *
 * Threads: the node's callback thread, one call at a time. Blocking calls of raftz are refused in it;
 * proposing more is welcome, as long as the node is not being freed.
 *
 * \param user_data What the call was given.
 * \param outcomes How they ended, in their order; they live until the function returns.
 * \param count How many.
 */
typedef void (*raftz_batch_done_fn)(void *user_data,
                                    const struct raftz_outcome *outcomes,
                                    size_t count);

/**
 * \brief What became of a command that was waited for, or of a read.
 */
typedef struct raftz_reply {
    /**
     * \brief Set it to `sizeof(raftz_reply)`.
     */
    size_t size;
    /**
     * \brief Index of the command's entry; of a read 0.
     */
    uint64_t index;
    /**
     * \brief Term of the command's entry; of a read 0.
     */
    uint64_t term;
    /**
     * \brief RAFTZ_OUTCOME_REJECTED or 0.
     */
    uint32_t flags;
    /**
     * \brief Zero.
     */
    uint32_t reserved;
    /**
     * \brief What the state machine answered, to be freed with raftz_bytes_free().
     */
    struct raftz_bytes *bytes;
} raftz_reply;

/**
 * \brief How a read is to be done.
 */
typedef struct raftz_read_opts {
    /**
     * \brief Set it to `sizeof(raftz_read_opts)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_READ_…
     */
    uint32_t level;
    /**
     * \brief Time after which the read is answered, in milliseconds. 0: the key `read_timeout_ms`.
     */
    uint32_t timeout_ms;
    /**
     * \brief For RAFTZ_READ_AT_LEAST.
     */
    uint64_t index;
    /**
     * \brief For RAFTZ_READ_BOUNDED.
     */
    uint64_t max_age_ms;
} raftz_read_opts;

/**
 * \brief A node's state, in numbers and words. The words live as long as the state.
 */
typedef struct raftz_state_info {
    /**
     * \brief Set it to `sizeof(raftz_state_info)`.
     */
    size_t size;
    /**
     * \brief The node.
     */
    uint64_t node_id;
    /**
     * \brief The leader that it knows; 0 for none.
     */
    uint64_t leader_id;
    /**
     * \brief Its term.
     */
    uint64_t term;
    /**
     * \brief RAFTZ_ROLE_…
     */
    uint32_t role;
    /**
     * \brief 1 if it leads and has committed an entry of its own term.
     */
    uint32_t is_ready;
    /**
     * \brief Its log begins after this index.
     */
    uint64_t base_index;
    /**
     * \brief Index of its last entry.
     */
    uint64_t last_index;
    /**
     * \brief Everything up to here is on its disk.
     */
    uint64_t durable_index;
    /**
     * \brief Everything up to here is known to be committed.
     */
    uint64_t commit_index;
    /**
     * \brief Everything up to here is applied to its machine.
     */
    uint64_t applied_index;
    /**
     * \brief First entry that its disk has lost and the leader has not yet replaced; 0 for none.
     */
    uint64_t damaged_from;
    /**
     * \brief Calls in flight on this node, from raftz_propose() to the end of the completion.
     */
    uint64_t calls_in_flight;
    /**
     * \brief Largest command that the cluster has agreed on.
     */
    uint64_t entry_bytes_max;
    /**
     * \brief How many times its data directory was opened.
     */
    uint64_t boot;
    /**
     * \brief How many other members there are; see raftz_state_peer().
     */
    size_t peer_count;
    /**
     * \brief Whether it was shut down: 1 or 0.
     */
    uint32_t is_shut_down;
    /**
     * \brief How many members' data directories, this node's among them, the membership names. Once it is
     * all of them, a wiped directory under any member's id is refused.
     */
    uint32_t disk_count;
    /**
     * \brief Why the node stopped, if it did because of a fault; else empty.
     */
    struct raftz_slice fault;
    /**
     * \brief Where it listens; empty if it does not.
     */
    struct raftz_slice listen_address;
    /**
     * \brief Why there may be no leader: who cannot be reached and why, in one line.
     */
    struct raftz_slice obstacles;
    /**
     * \brief Whom it is handing its leadership to; 0 for nobody.
     */
    uint64_t transfer_to;
} raftz_state_info;

/**
 * \brief Another member, as a node sees it. The words live as long as the state.
 */
typedef struct raftz_peer_info {
    /**
     * \brief Set it to `sizeof(raftz_peer_info)`.
     */
    size_t size;
    /**
     * \brief The member.
     */
    uint64_t node_id;
    /**
     * \brief 1 if there is a usable link.
     */
    uint32_t is_connected;
    /**
     * \brief RAFTZ_SNAPSHOT_SENDING or RAFTZ_SNAPSHOT_FETCHING while a snapshot is on its way; else 0.
     */
    uint32_t snapshot_phase;
    /**
     * \brief On a leader: its log equals the leader's up to here, durably; else 0.
     */
    uint64_t matched_index;
    /**
     * \brief On a leader: the next entry to send; else 0.
     */
    uint64_t next_index;
    /**
     * \brief On a leader: messages with entries that are on their way; else 0.
     */
    uint64_t appends_in_flight;
    /**
     * \brief Where it is expected: `host:port`.
     */
    struct raftz_slice address;
    /**
     * \brief Why there is no link; empty if there is one.
     */
    struct raftz_slice unreachable;
    /**
     * \brief On a leader: "probe", "replicate" or "snapshot", ended by NUL; else empty.
     */
    const char *mode;
    /**
     * \brief How many bytes of that snapshot have been sent to it, or are on this node's disk; else 0.
     */
    uint64_t snapshot_bytes;
    /**
     * \brief How many it has; else 0.
     */
    uint64_t snapshot_total_bytes;
} raftz_peer_info;

/**
 * \brief How a node stands.
 */
typedef struct raftz_standing_info {
    /**
     * \brief Set it to `sizeof(raftz_standing_info)`.
     */
    size_t size;
    /**
     * \brief Rises with each change, from 1.
     */
    uint64_t version;
    /**
     * \brief The node.
     */
    uint64_t node_id;
    /**
     * \brief The leader that it knows; 0 for none.
     */
    uint64_t leader_id;
    /**
     * \brief Its term.
     */
    uint64_t term;
    /**
     * \brief RAFTZ_ROLE_…
     */
    uint32_t role;
    /**
     * \brief 1 if it leads and has committed an entry of its own term.
     */
    uint32_t is_ready;
    /**
     * \brief Index of the entry that gave the membership in force; 0 for the founding one.
     */
    uint64_t membership_index;
    /**
     * \brief How many other nodes have a usable link to it.
     */
    uint32_t connected_count;
    /**
     * \brief 1 if commands are refused for lack of disk space.
     */
    uint32_t is_storage_full;
    /**
     * \brief 1 if it has stopped because of a fault; raftz_state_get() says which.
     */
    uint32_t is_faulted;
    /**
     * \brief 1 if it was shut down.
     */
    uint32_t is_shut_down;
    /**
     * \brief Of the first snapshot on its way: RAFTZ_SNAPSHOT_SENDING or RAFTZ_SNAPSHOT_FETCHING; 0 for none.
     */
    uint32_t snapshot_phase;
    /**
     * \brief How many snapshots are on their way.
     */
    uint32_t snapshot_count;
    /**
     * \brief To or from which node the first is.
     */
    uint64_t snapshot_peer_id;
    /**
     * \brief How many of its bytes are through.
     */
    uint64_t snapshot_bytes;
    /**
     * \brief How many it has.
     */
    uint64_t snapshot_total_bytes;
} raftz_standing_info;

/**
 * \brief What an answer says. Which fields mean something depends on its kind; the others are zero.
 */
typedef struct raftz_kv_reply_info {
    /**
     * \brief Set it to `sizeof(raftz_kv_reply_info)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_KV_…
     */
    uint32_t kind;
    /**
     * \brief 1 or 0; see the kind.
     */
    uint32_t is_on;
    /**
     * \brief See the kind.
     */
    int64_t number;
    /**
     * \brief See the kind.
     */
    uint64_t count;
    /**
     * \brief See the kind. It lives as long as the answer.
     */
    struct raftz_slice value;
} raftz_kv_reply_info;

/**
 * \brief How a cluster is simulated. All zero, but for the size, is the default.
 */
typedef struct raftz_sim_opts {
    /**
     * \brief Set it to `sizeof(raftz_sim_opts)`.
     */
    size_t size;
    /**
     * \brief How long faults go on, in microseconds of virtual time, at most an hour; 0 for a minute.
     */
    uint64_t duration_us;
    /**
     * \brief After a violation: most runs of a search for a shorter one, whose report then is the answer; 0 for none.
     */
    uint64_t shrink_runs;
    /**
     * \brief Kinds of faults to leave out, by name, with commas: `kill,rot`. What is no name is refused with a list
     * of them all. Empty for none.
     */
    struct raftz_slice without;
    /**
     * \brief Faults of the run to leave out, by number, with commas: `3,5-9`; as a report's `skip`. Empty for none.
     */
    struct raftz_slice skip;
    /**
     * \brief Given to `workload` and `tell`.
     */
    void *user_data;
    /**
     * \brief Draws the next command that a client proposes, and writes it with raftz_sink_write(): at most
     * RAFTZ_SIM_COMMAND_BYTES_MAX bytes, which follow from what `chooser` answers alone. A status other than RAFTZ_OK,
     * with words by raftz_sink_fail(), makes raftz_sim_run() fail. NULL: up to 32 random bytes.
     */
    raftz_status (*workload)(void *user_data,
                             struct raftz_sim_chooser *chooser,
                             struct raftz_sink *command);
    /**
     * \brief Told line by line what happens in the run, as it was asked for; those of a search for a shorter one are
     * silent. Optional.
     */
    void (*tell)(void *user_data, struct raftz_slice line);
} raftz_sim_opts;

/**
 * \brief What a report says. The words live as long as the report.
 */
typedef struct raftz_sim_report_info {
    /**
     * \brief Set it to `sizeof(raftz_sim_report_info)`.
     */
    size_t size;
    /**
     * \brief 1 if something was found wrong; else 0.
     */
    uint32_t is_violated;
    /**
     * \brief 1 if more was damaged than any cluster survives, so that only safety was judged; else 0.
     */
    uint32_t is_beyond_survival;
    /**
     * \brief What must hold and does not, such as "machines agree"; else empty.
     */
    struct raftz_slice property;
    /**
     * \brief What happened, in a sentence; else empty.
     */
    struct raftz_slice sentence;
    /**
     * \brief When, in microseconds of virtual time.
     */
    uint64_t at_us;
    /**
     * \brief The seed. With it, `duration_us`, `skip` and the same `without` the run is asked for again.
     */
    uint64_t seed;
    /**
     * \brief How long faults went on, in microseconds of virtual time.
     */
    uint64_t duration_us;
    /**
     * \brief Which of them were left out, by number: `3,5-9`.
     */
    struct raftz_slice skip;
    /**
     * \brief A hash of everything that happened: equal runs have equal ones.
     */
    uint64_t trace;
    /**
     * \brief Virtual time that passed, in microseconds.
     */
    uint64_t virtual_us;
    /**
     * \brief How many things happened.
     */
    uint64_t events;
    /**
     * \brief How many faults struck.
     */
    uint64_t faults;
    /**
     * \brief Which kinds, with commas: `kill,split`.
     */
    struct raftz_slice struck;
    /**
     * \brief How many entries were committed.
     */
    uint64_t committed;
    /**
     * \brief How many commands clients proposed.
     */
    uint64_t calls;
    /**
     * \brief How many of them were done.
     */
    uint64_t calls_done;
    /**
     * \brief How many were certainly not done.
     */
    uint64_t calls_refused;
    /**
     * \brief Of how many nobody could say.
     */
    uint64_t calls_unknown;
} raftz_sim_report_info;

/**
 * \brief Names a snapshot: two of the same name are the same bytes, on whatever node. The layout of this struct is frozen.
 */
typedef struct raftz_snapshot_id {
    /**
     * \brief The term of the last entry that it covers.
     */
    uint64_t term;
    /**
     * \brief The index of that entry.
     */
    uint64_t index;
    /**
     * \brief How many bytes it has.
     */
    uint64_t bytes;
    /**
     * \brief A hash of them, of the program's choice; nodes compare it.
     */
    uint8_t hash[32];
} raftz_snapshot_id;

/**
 * \brief A snapshot that a program keeps. The layout of this struct is frozen.
 */
typedef struct raftz_snapshot {
    /**
     * \brief Its name.
     */
    struct raftz_snapshot_id id;
    /**
     * \brief What raftz_core_snapshot_base() gave for it, on whatever node. To be kept and sent with it.
     */
    struct raftz_slice base;
} raftz_snapshot;

/**
 * \brief What a core begins with.
 */
typedef struct raftz_core_opts {
    /**
     * \brief Set it to `sizeof(raftz_core_opts)`.
     */
    size_t size;
    /**
     * \brief RAFTZ_ABI_VERSION: the core gives no action that is newer.
     */
    uint32_t abi_version;
    /**
     * \brief RAFTZ_CORE_…, or 0.
     */
    uint32_t flags;
    /**
     * \brief Names the disk of a new core, for ever; all zero: drawn at random. What was kept knows its own.
     */
    uint8_t disk_id[16];
    /**
     * \brief What the disk holds: the record of the last write. Empty with RAFTZ_CORE_FOUNDS, and only then.
     */
    struct raftz_slice record;
    /**
     * \brief What the disk holds: all entries, in order, each as it was given to be written. They are looked through
     * during the call and not kept, so that a mapped file will do.
     */
    const struct raftz_slice *entries;
    /**
     * \brief How many.
     */
    size_t entry_count;
    /**
     * \brief The newest snapshot on the disk, from which the machine was restored; NULL for none.
     */
    const struct raftz_snapshot *snapshot;
    /**
     * \brief With RAFTZ_CORE_MACHINE_PERSISTS: the last index that the machine has in its own storage.
     */
    uint64_t machine_applied;
} raftz_core_opts;

/**
 * \brief What RAFTZ_ACTION_PERSIST carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_persist {
    /**
     * \brief The core's life, to be given back.
     */
    uint64_t boot;
    /**
     * \brief The write's number in that life, from 1, without gaps; to be given back.
     */
    uint64_t number;
    /**
     * \brief What is to be written, whole or not at all.
     */
    const struct raftz_log_write *write;
} raftz_action_persist;

/**
 * \brief What RAFTZ_ACTION_SEND carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_send {
    /**
     * \brief To whom.
     */
    uint64_t to;
    /**
     * \brief What; for RAFTZ_INPUT_RECEIVE there.
     */
    struct raftz_slice message;
} raftz_action_send;

/**
 * \brief What RAFTZ_ACTION_READ_ENTRIES carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_read_entries {
    /**
     * \brief Names the request; to be given back.
     */
    uint64_t request;
    /**
     * \brief The first entry that is wanted.
     */
    uint64_t first;
    /**
     * \brief The last one.
     */
    uint64_t last;
    /**
     * \brief So many bytes are enough; but at least one entry.
     */
    uint64_t bytes_max;
} raftz_action_read_entries;

/**
 * \brief What RAFTZ_ACTION_APPLY carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_apply {
    /**
     * \brief The first entry.
     */
    uint64_t first;
    /**
     * \brief The last one: what RAFTZ_INPUT_APPLIED says when all of them are applied.
     */
    uint64_t last;
    /**
     * \brief Those of the entries that are commands; the others are the core's own.
     */
    const struct raftz_command *commands;
    /**
     * \brief How many; there may be none.
     */
    size_t command_count;
} raftz_action_apply;

/**
 * \brief What RAFTZ_ACTION_FETCH carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_fetch {
    /**
     * \brief Who has it.
     */
    uint64_t from;
    /**
     * \brief Which.
     */
    struct raftz_snapshot_id id;
} raftz_action_fetch;

/**
 * \brief What RAFTZ_ACTION_ACCEPTED carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_accepted {
    /**
     * \brief The entry of the first; the others follow it.
     */
    uint64_t first;
    /**
     * \brief The term of all of them.
     */
    uint64_t term;
    /**
     * \brief Their tokens, in order.
     */
    const uint64_t *tokens;
    /**
     * \brief How many.
     */
    size_t token_count;
} raftz_action_accepted;

/**
 * \brief What RAFTZ_ACTION_REFUSED carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_refused {
    /**
     * \brief Why: RAFTZ_NOT_LEADER, RAFTZ_BUSY, RAFTZ_STORAGE_FULL, RAFTZ_TOO_LARGE or RAFTZ_FAULTED.
     */
    raftz_status status;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief With RAFTZ_NOT_LEADER: who leads, as far as is known; else 0.
     */
    uint64_t leader_id;
    /**
     * \brief Why, in words.
     */
    struct raftz_slice message;
    /**
     * \brief Their tokens, in order.
     */
    const uint64_t *tokens;
    /**
     * \brief How many.
     */
    size_t token_count;
} raftz_action_refused;

/**
 * \brief What RAFTZ_ACTION_MAY_READ carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_may_read {
    /**
     * \brief The read.
     */
    uint64_t request;
    /**
     * \brief What must be applied before it is answered.
     */
    uint64_t index;
} raftz_action_may_read;

/**
 * \brief What RAFTZ_ACTION_TRANSFER_ENDED carries. The layout of this struct is frozen.
 */
typedef struct raftz_action_transfer_ended {
    /**
     * \brief The transfer.
     */
    uint64_t token;
    /**
     * \brief Who leads, as far as is known; else 0.
     */
    uint64_t leader_id;
    /**
     * \brief RAFTZ_OK: that node leads now. Otherwise why not.
     */
    raftz_status status;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief Why not, in words; empty if it is done.
     */
    struct raftz_slice message;
} raftz_action_transfer_ended;

/**
 * \brief What an action carries: of which kind, that says the action. The layout is frozen.
 */
typedef union raftz_core_action_with {
    /**
     * \brief As much as there is room for.
     */
    uint64_t reserved[12];
    /**
     * \brief Of RAFTZ_ACTION_PERSIST.
     */
    struct raftz_action_persist persist;
    /**
     * \brief Of RAFTZ_ACTION_SEND.
     */
    struct raftz_action_send send;
    /**
     * \brief Of RAFTZ_ACTION_READ_ENTRIES.
     */
    struct raftz_action_read_entries read_entries;
    /**
     * \brief Of RAFTZ_ACTION_APPLY.
     */
    struct raftz_action_apply apply;
    /**
     * \brief Of RAFTZ_ACTION_RESTORE.
     */
    struct raftz_snapshot_id snapshot_id;
    /**
     * \brief Of RAFTZ_ACTION_FETCH.
     */
    struct raftz_action_fetch fetch;
    /**
     * \brief Of RAFTZ_ACTION_ACCEPTED.
     */
    struct raftz_action_accepted accepted;
    /**
     * \brief Of RAFTZ_ACTION_REFUSED.
     */
    struct raftz_action_refused refused;
    /**
     * \brief Of RAFTZ_ACTION_MAY_READ.
     */
    struct raftz_action_may_read may_read;
    /**
     * \brief Of RAFTZ_ACTION_MAY_NOT_READ.
     */
    uint64_t request;
    /**
     * \brief Of RAFTZ_ACTION_TRANSFER_ENDED.
     */
    struct raftz_action_transfer_ended transfer_ended;
    /**
     * \brief Of RAFTZ_ACTION_EVENT.
     */
    const struct raftz_event_info *event;
    /**
     * \brief Of RAFTZ_ACTION_HALT: words in UTF-8, without NUL at the end.
     */
    struct raftz_slice reason;
} raftz_core_action_with;

/**
 * \brief Something that a core wants done. The layout of this struct is frozen.
 *
 * A later version may have more kinds. It gives none of them to a program whose `abi_version` in raftz_core_opts is older
 * than they are, so that nothing need be ignored that must not be.
 */
typedef struct raftz_core_action {
    /**
     * \brief RAFTZ_ACTION_…
     */
    uint32_t kind;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief What it carries.
     */
    union raftz_core_action_with with;
} raftz_core_action;

/**
 * \brief What RAFTZ_INPUT_RECEIVE carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_receive {
    /**
     * \brief Its sender, as the program's network knows it.
     */
    uint64_t from;
    /**
     * \brief The message, as RAFTZ_ACTION_SEND gave it; copied.
     */
    struct raftz_slice message;
} raftz_input_receive;

/**
 * \brief A proposed command. The layout of this struct is frozen.
 */
typedef struct raftz_proposal {
    /**
     * \brief Names it in the answer; any number.
     */
    uint64_t token;
    /**
     * \brief The command; copied.
     */
    struct raftz_slice command;
} raftz_proposal;

/**
 * \brief What RAFTZ_INPUT_PROPOSE carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_propose {
    /**
     * \brief The commands, which reach the log in this order and without others between them.
     */
    const struct raftz_proposal *proposals;
    /**
     * \brief How many.
     */
    size_t proposal_count;
} raftz_input_propose;

/**
 * \brief What RAFTZ_INPUT_READ carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_read {
    /**
     * \brief Names it in the answer; none that is open may have the same.
     */
    uint64_t request;
    /**
     * \brief Not 0: a lease is enough, if the configuration has `lease_reads`.
     */
    uint32_t by_lease;
    /**
     * \brief 0.
     */
    uint32_t reserved;
} raftz_input_read;

/**
 * \brief What RAFTZ_INPUT_TRANSFER carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_transfer {
    /**
     * \brief Names it in the answer; any number.
     */
    uint64_t token;
    /**
     * \brief Who is to lead; 0: whoever suits best.
     */
    uint64_t target_id;
    /**
     * \brief When it must be decided, by the clock of `boot_us`.
     */
    uint64_t deadline_us;
    /**
     * \brief Not 0: leave elections to others for a while, too.
     */
    uint32_t steps_down;
    /**
     * \brief 0.
     */
    uint32_t reserved;
} raftz_input_transfer;

/**
 * \brief What RAFTZ_INPUT_PERSISTED carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_persisted {
    /**
     * \brief As RAFTZ_ACTION_PERSIST said. One of an earlier life is nothing.
     */
    uint64_t boot;
    /**
     * \brief As RAFTZ_ACTION_PERSIST said, of the last write that is durable.
     */
    uint64_t number;
} raftz_input_persisted;

/**
 * \brief What RAFTZ_INPUT_ENTRIES_READ carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_entries_read {
    /**
     * \brief As RAFTZ_ACTION_READ_ENTRIES said.
     */
    uint64_t request;
    /**
     * \brief RAFTZ_OK, or any other: they could not be read.
     */
    raftz_status status;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief The entries from `first` on, in order, each as it was given to be written; at least one. What was changed
     * meanwhile is found out, and is a failed read.
     */
    const struct raftz_slice *entries;
    /**
     * \brief How many.
     */
    size_t entry_count;
    /**
     * \brief Why they could not be read, in words.
     */
    struct raftz_slice reason;
} raftz_input_entries_read;

/**
 * \brief What RAFTZ_INPUT_LINK_UP carries. The layout of this struct is frozen.
 */
typedef struct raftz_input_link_up {
    /**
     * \brief The peer.
     */
    uint64_t peer_id;
    /**
     * \brief Its life: `boot` of its raftz_core_info.
     */
    uint64_t boot;
    /**
     * \brief Its disk: `disk_id` of its raftz_core_info. A leader writes it into the membership. From then on a link from
     * another disk is told of as RAFTZ_EVENT_NONSENSE: close it, and hand on no message of it.
     */
    uint8_t disk_id[16];
} raftz_input_link_up;

/**
 * \brief What an input carries: of which kind, that says the input. The layout is frozen.
 */
typedef union raftz_core_input_with {
    /**
     * \brief As much as there is room for.
     */
    uint64_t reserved[12];
    /**
     * \brief Of RAFTZ_INPUT_RECEIVE.
     */
    struct raftz_input_receive receive;
    /**
     * \brief Of RAFTZ_INPUT_PROPOSE.
     */
    struct raftz_input_propose propose;
    /**
     * \brief Of RAFTZ_INPUT_READ.
     */
    struct raftz_input_read read;
    /**
     * \brief Of RAFTZ_INPUT_TRANSFER.
     */
    struct raftz_input_transfer transfer;
    /**
     * \brief Of RAFTZ_INPUT_PERSISTED.
     */
    struct raftz_input_persisted persisted;
    /**
     * \brief Of RAFTZ_INPUT_PERSIST_FAILED: words in UTF-8.
     */
    struct raftz_slice reason;
    /**
     * \brief Of RAFTZ_INPUT_APPLIED and RAFTZ_INPUT_COMPACT.
     */
    uint64_t index;
    /**
     * \brief Of RAFTZ_INPUT_ENTRIES_READ.
     */
    struct raftz_input_entries_read entries_read;
    /**
     * \brief Of RAFTZ_INPUT_SNAPSHOT_KEPT.
     */
    struct raftz_snapshot snapshot;
    /**
     * \brief Of RAFTZ_INPUT_SNAPSHOT_LOST and RAFTZ_INPUT_RESTORED.
     */
    struct raftz_snapshot_id snapshot_id;
    /**
     * \brief Of RAFTZ_INPUT_LINK_UP.
     */
    struct raftz_input_link_up link_up;
    /**
     * \brief Of RAFTZ_INPUT_LINK_DOWN.
     */
    uint64_t peer_id;
    /**
     * \brief Of RAFTZ_INPUT_STORAGE_FULL.
     */
    uint32_t is_full;
} raftz_core_input_with;

/**
 * \brief Something that happened to a core. The layout of this struct is frozen.
 *
 * A later version may know more kinds; what a kind carries never changes. A kind that the library does not know is
 * RAFTZ_UNSUPPORTED.
 */
typedef struct raftz_core_input {
    /**
     * \brief RAFTZ_INPUT_…
     */
    uint32_t kind;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief What it carries.
     */
    union raftz_core_input_with with;
} raftz_core_input;

/**
 * \brief How a core is.
 */
typedef struct raftz_core_info {
    /**
     * \brief Set it to `sizeof(raftz_core_info)`.
     */
    size_t size;
    /**
     * \brief The node.
     */
    uint64_t node_id;
    /**
     * \brief Names its disk. Peers are told it when a link comes up.
     */
    uint8_t disk_id[16];
    /**
     * \brief Its life: how many cores have begun with this disk. Peers are told it, too.
     */
    uint64_t boot;
    /**
     * \brief Its term.
     */
    uint64_t term;
    /**
     * \brief Whom it voted for in that term; 0 for nobody.
     */
    uint64_t vote;
    /**
     * \brief The leader that it knows; 0 for none.
     */
    uint64_t leader_id;
    /**
     * \brief RAFTZ_ROLE_…
     */
    uint32_t role;
    /**
     * \brief 1 if it leads and has committed an entry of its own term.
     */
    uint32_t is_ready;
    /**
     * \brief 1 once its first write is durable; before that it takes nothing else.
     */
    uint32_t is_open;
    /**
     * \brief 1 once it has halted.
     */
    uint32_t is_halted;
    /**
     * \brief 1 if its log begins behind what its machine holds, for a snapshot was lost. It applies nothing until
     * RAFTZ_INPUT_SNAPSHOT_KEPT brings another one, which any peer may have.
     */
    uint32_t lacks_snapshot;
    /**
     * \brief 0.
     */
    uint32_t reserved;
    /**
     * \brief Its log begins after this index.
     */
    uint64_t base_index;
    /**
     * \brief Index of its last entry.
     */
    uint64_t last_index;
    /**
     * \brief Term of its last entry.
     */
    uint64_t last_term;
    /**
     * \brief Everything up to here is on its disk.
     */
    uint64_t durable_index;
    /**
     * \brief Everything up to here is known to be committed.
     */
    uint64_t commit_index;
    /**
     * \brief Everything up to here is applied to its machine.
     */
    uint64_t applied_index;
    /**
     * \brief First entry that its disk has lost and the leader has not yet replaced; 0 for none.
     */
    uint64_t damaged_from;
    /**
     * \brief Whom it is handing its leadership to; 0 for nobody.
     */
    uint64_t transfer_to;
    /**
     * \brief Largest command that the cluster has agreed on.
     */
    uint64_t entry_bytes_max;
} raftz_core_info;

/**
 * \brief Done.
 */
#define RAFTZ_OK 0

/**
 * \brief Refused: another node leads; the error's or outcome's leader id says which, if known.
 */
#define RAFTZ_NOT_LEADER -1

/**
 * \brief Refused: no leader appeared before the deadline.
 */
#define RAFTZ_NO_LEADER -2

/**
 * \brief Refused: a bound on what is in flight is reached; retry after a short wait.
 */
#define RAFTZ_BUSY -3

/**
 * \brief Refused: the leader's disk is below its reserve of free space, or those of a quorum are.
 */
#define RAFTZ_STORAGE_FULL -4

/**
 * \brief Refused: the command exceeds the cluster's limit.
 */
#define RAFTZ_TOO_LARGE -5

/**
 * \brief Refused: a later leader committed another entry in its place.
 */
#define RAFTZ_OVERWRITTEN -6

/**
 * \brief Refused: the node is shut down, or about to be.
 */
#define RAFTZ_SHUT_DOWN -7

/**
 * \brief Refused: the node has stopped because of a fault.
 */
#define RAFTZ_FAULTED -8

/**
 * \brief Refused: a blocking call inside a callback of a node would wait for itself.
 */
#define RAFTZ_IN_CALLBACK -9

/**
 * \brief Refused: this node does not lead in the term that was asked for.
 */
#define RAFTZ_TERM_MISMATCH -10

/**
 * \brief Unknown: the deadline passed while the command was in the log or on its way there.
 */
#define RAFTZ_UNKNOWN_TIMEOUT -32

/**
 * \brief Unknown: its leader was lost after the command was handed over.
 */
#define RAFTZ_UNKNOWN_LEADERSHIP_LOST -33

/**
 * \brief Unknown: the node shut down while the command was in the log.
 */
#define RAFTZ_UNKNOWN_SHUT_DOWN -34

/**
 * \brief Unknown: the node faulted while the command was in the log.
 */
#define RAFTZ_UNKNOWN_FAULTED -35

/**
 * \brief Unknown: the command goes on, but a callback of the node must not wait for it.
 */
#define RAFTZ_UNKNOWN_IN_CALLBACK -36

/**
 * \brief The configuration is wrong or contradicts itself.
 */
#define RAFTZ_CONFIG -64

/**
 * \brief The data directory cannot be used.
 */
#define RAFTZ_STORAGE -65

/**
 * \brief The network cannot be used.
 */
#define RAFTZ_NETWORK -66

/**
 * \brief The state machine was not created, or its own storage does not belong to this log.
 */
#define RAFTZ_MACHINE -67

/**
 * \brief The system gave no thread or no descriptor.
 */
#define RAFTZ_THREAD -68

/**
 * \brief No leader became known in time.
 */
#define RAFTZ_LEADER_TIMEOUT -69

/**
 * \brief The node did not apply far enough in time.
 */
#define RAFTZ_APPLY_TIMEOUT -70

/**
 * \brief A read had no answer in time.
 */
#define RAFTZ_READ_TIMEOUT -71

/**
 * \brief Some threads did not end in time, because a callback does not return.
 */
#define RAFTZ_STILL_RUNNING -72

/**
 * \brief The state machine could not answer a read.
 */
#define RAFTZ_READ_FAILED -73

/**
 * \brief There is no snapshot: none could be taken, or not in time.
 */
#define RAFTZ_SNAPSHOT_UNAVAILABLE -74

/**
 * \brief Leadership was not handed over: the node that was named is no other voter.
 */
#define RAFTZ_TRANSFER_TARGET -80

/**
 * \brief Leadership was not handed over: the node that was named cannot lead now, or no other node can.
 */
#define RAFTZ_TRANSFER_UNFIT -81

/**
 * \brief Leadership was not handed over in time.
 */
#define RAFTZ_TRANSFER_TIMEOUT -82

/**
 * \brief Leadership is being handed over already.
 */
#define RAFTZ_TRANSFER_UNDER_WAY -83

/**
 * \brief Another node leads than the one that was named.
 */
#define RAFTZ_TRANSFER_OVERTAKEN -84

/**
 * \brief A pointer that must not be NULL is.
 */
#define RAFTZ_NULL_ARG -96

/**
 * \brief An argument has a value that it cannot have.
 */
#define RAFTZ_INVALID_ARG -97

/**
 * \brief Text is not UTF-8.
 */
#define RAFTZ_BAD_UTF8 -98

/**
 * \brief This version does not have it (yet).
 */
#define RAFTZ_UNSUPPORTED -99

/**
 * \brief A struct has a size, or a vtable a version, that this library does not know.
 */
#define RAFTZ_ABI_MISMATCH -100

/**
 * \brief The library failed inside: a bug of it. The handle takes no more calls; free it.
 */
#define RAFTZ_PANIC -101

/**
 * \brief The process was forked after the handle was made; a child cannot use it.
 */
#define RAFTZ_FORKED -102

/**
 * \brief For user callbacks: a general failure.
 */
#define RAFTZ_CALLBACK_FAILED -103

/**
 * \brief Nothing came before the timeout.
 */
#define RAFTZ_EMPTY -104

/**
 * \brief The queue was closed, and everything in it has been taken; or the link has ended.
 */
#define RAFTZ_CLOSED -105

/**
 * \brief Bytes are no message of a member of this cluster: they came garbled, cut short, or from elsewhere.
 */
#define RAFTZ_BAD_MESSAGE -107

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * \brief The name of a status, such as "RAFTZ_BUSY"; "RAFTZ_?" for a number that this version does
 * not know.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param status Any number.
 * \return Static text; never NULL, never freed.
 */
const char *raftz_status_name(raftz_status status);

/**
 * \brief Whether a call that ended like this may have had its effect, or may still have it; also for numbers
 * of later versions. To repeat it is safe only if it is idempotent.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param status Any number.
 * \return Whether it may.
 */
bool raftz_status_is_outcome_unknown(raftz_status status);

/**
 * \brief As raftz_error_is_retriable(), for a status that came without an error, as in an outcome.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param status Any number.
 * \return Whether the same call may well succeed a little later.
 */
bool raftz_status_is_retriable(raftz_status status);

/**
 * \brief As raftz_error_is_fatal(), for a status that came without an error, as in an outcome.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param status Any number.
 * \return Whether the handle is of no more use.
 */
bool raftz_status_is_fatal(raftz_status status);

/**
 * \brief Version of the library that is running, as RAFTZ_VERSION gives that of the header.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \return Major * 10000 + minor * 100 + patch.
 */
uint32_t raftz_version(void);

/**
 * \brief Version of the library that is running, as text: "0.2.0".
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \return Static text; never NULL, never freed.
 */
const char *raftz_version_text(void);

/**
 * \brief The newest vtable version that the running library knows, as RAFTZ_ABI_VERSION.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \return The version.
 */
uint32_t raftz_abi_version(void);

/**
 * \brief Copies bytes.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param data What to copy.
 * \param bytes [out] The copy, to be freed with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_bytes_copy(struct raftz_slice data,
                              struct raftz_bytes **bytes,
                              struct raftz_error **error);

/**
 * \brief Hands bytes over without a copy.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param data The bytes; they must not change until `free` is called.
 * \param free_fn Called once when nobody needs them any more, on any thread; NULL for bytes that live for
 *        ever. If the call fails it is not called, and the bytes stay the caller's.
 * \param context Given to `free_fn`.
 * \param bytes [out] The bytes, to be freed with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_bytes_wrap(struct raftz_slice data,
                              raftz_free_fn free_fn,
                              void *context,
                              struct raftz_bytes **bytes,
                              struct raftz_error **error);

/**
 * \brief The bytes themselves.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param bytes The object; for NULL the answer is an empty slice.
 * \return A slice that lives as long as the object.
 */
struct raftz_slice raftz_bytes_slice(const struct raftz_bytes *bytes);

/**
 * \brief Frees bytes.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param bytes The object, or NULL, which is nothing.
 */
void raftz_bytes_free(struct raftz_bytes *bytes);

/**
 * \brief Frees an error.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error, or NULL, which is nothing.
 */
void raftz_error_free(struct raftz_error *error);

/**
 * \brief The status that the failed call returned.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is RAFTZ_OK.
 * \return The status.
 */
raftz_status raftz_error_status(const struct raftz_error *error);

/**
 * \brief What went wrong, where, and what to do about it: one line of English, ended by NUL.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is an empty line.
 * \return Text that lives as long as the error; never NULL.
 */
const char *raftz_error_message(const struct raftz_error *error);

/**
 * \brief Whether the same call may well succeed a little later; after RAFTZ_NOT_LEADER rather on the node that
 * raftz_error_leader_id() names. It has certainly had no effect yet: never true for an unknown outcome.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is false.
 * \return Whether it may.
 */
bool raftz_error_is_retriable(const struct raftz_error *error);

/**
 * \brief Whether the handle is of no more use: free it.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is false.
 * \return Whether it is.
 */
bool raftz_error_is_fatal(const struct raftz_error *error);

/**
 * \brief Whether the command may have had its effect, or may still have it. To repeat it is safe only
 * if it is idempotent.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is false.
 * \return Whether it may.
 */
bool raftz_error_is_outcome_unknown(const struct raftz_error *error);

/**
 * \brief The node that leads, as far as is known; 0 if it is not.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is 0.
 * \return Its id, or 0.
 */
uint64_t raftz_error_leader_id(const struct raftz_error *error);

/**
 * \brief The system's errno behind the failure; 0 if there is none.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param error The error; for NULL the answer is 0.
 * \return The number, or 0.
 */
int32_t raftz_error_os_errno(const struct raftz_error *error);

/**
 * \brief Makes a configuration with all defaults: memory storage, no founding members, a port of the
 * system's choice on the loopback interface.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node_id The node's own id, from 1.
 * \param cluster_id The cluster's id, the same on all its nodes: 1 to 32 hexadecimal digits.
 * \param config [out] The configuration, to be freed with raftz_config_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8, RAFTZ_INVALID_ARG or RAFTZ_CONFIG.
 */
raftz_status raftz_config_new(uint64_t node_id,
                              const char *cluster_id,
                              struct raftz_config **config,
                              struct raftz_error **error);

/**
 * \brief Frees a configuration. Nodes that were started with it are not touched.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration, or NULL, which is nothing.
 */
void raftz_config_free(struct raftz_config *config);

/**
 * \brief Sets a key from text, as the command line, the environment and files do.
 *
 * Numbers are decimal; those of keys that end in `_bytes` may end in `k`, `m` or `g` (powers of 1024).
 * Booleans are `true` or `false`. `founders` is `1=host:port,2=host:port`; `storage` is `memory` or
 * `directory:path`; `seed` is a number or `random`.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration. If the call fails it stays as it was.
 * \param key The key.
 * \param text The value.
 * \param error [out] Why not; for an unknown key with the nearest known one. May be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
 */
raftz_status raftz_config_set(struct raftz_config *config,
                              const char *key,
                              const char *text,
                              struct raftz_error **error);

/**
 * \brief Sets a key whose value is a number.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration. If the call fails it stays as it was.
 * \param key The key.
 * \param number The value, in the unit that the key's name ends in.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
 */
raftz_status raftz_config_set_number(struct raftz_config *config,
                                     const char *key,
                                     uint64_t number,
                                     struct raftz_error **error);

/**
 * \brief Sets a key whose value is true or false.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration. If the call fails it stays as it was.
 * \param key The key.
 * \param is_on The value.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
 */
raftz_status raftz_config_set_bool(struct raftz_config *config,
                                   const char *key,
                                   uint8_t is_on,
                                   struct raftz_error **error);

/**
 * \brief Sets where the node listens: `host:port`.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param address The address. Port 0 lets the system choose one, for a cluster of one node.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
 */
raftz_status raftz_config_set_listen_address(struct raftz_config *config,
                                             const char *address,
                                             struct raftz_error **error);

/**
 * \brief Adds a founding member. Every founder lists all of them, itself included.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param node_id The member's id, from 1.
 * \param address Where the others reach it: `host:port`. In a cluster of one, and in a raftz_network, nobody calls
 *        there, but it has to look like an address.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_config_add_founder(struct raftz_config *config,
                                      uint64_t node_id,
                                      const char *address,
                                      struct raftz_error **error);

/**
 * \brief Keeps the log in a directory of its own: it survives a power cut.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param path The directory; for another node a different one.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_config_set_directory(struct raftz_config *config,
                                        const char *path,
                                        struct raftz_error **error);

/**
 * \brief Keeps the log in memory: it is gone with the process. For tests, and for what may be lost.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK or RAFTZ_NULL_ARG.
 */
raftz_status raftz_config_set_memory(struct raftz_config *config, struct raftz_error **error);

/**
 * \brief Keeps the log in a store of the program's own.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param storage The store; copied. It is opened by raftz_node_is_formatted(), raftz_node_bootstrap() and
 *        raftz_node_start(), each time anew.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_ABI_MISMATCH.
 */
raftz_status raftz_config_set_storage(struct raftz_config *config,
                                      const struct raftz_storage *storage,
                                      struct raftz_error **error);

/**
 * \brief Carries messages to other nodes by a transport of the program's own, in place of TCP.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param transport The transport; copied. It is opened by raftz_node_start(), for each node anew.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_ABI_MISMATCH.
 */
raftz_status raftz_config_set_transport(struct raftz_config *config,
                                        const struct raftz_transport *transport,
                                        struct raftz_error **error);

/**
 * \brief A key's present value, as raftz_config_set() takes it.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param key The key.
 * \param text [out] The value, to be freed with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BAD_UTF8 or RAFTZ_CONFIG.
 */
raftz_status raftz_config_get(const struct raftz_config *config,
                              const char *key,
                              struct raftz_bytes **text,
                              struct raftz_error **error);

/**
 * \brief The keys that there are, one after the other.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param at Which, from 0.
 * \return Text that lives as long as the configuration; NULL after the last key.
 */
const char *raftz_config_key(const struct raftz_config *config, size_t at);

/**
 * \brief Checks every value and their agreement, as raftz_node_start() will.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param error [out] The first thing that is wrong and what to do about it; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_CONFIG.
 */
raftz_status raftz_config_validate(const struct raftz_config *config, struct raftz_error **error);

/**
 * \brief Has a function called with the node's events, on the node's callback thread, one at a time.
 *
 * It replaces what was set before, also with raftz_config_set_event_queue().
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param kinds Which: bits `1 << RAFTZ_EVENT_…`, or RAFTZ_EVENTS_ALL for all that this version has.
 * \param event_fn The function; see raftz_event_fn.
 * \param user_data Given to it.
 * \param destroy_fn Called with the user data once neither the configuration nor a node started with it
 *        needs it any more; may be NULL. If the call fails it is not called.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, or RAFTZ_UNSUPPORTED for kinds that do not exist yet.
 */
raftz_status raftz_config_set_event_callback(struct raftz_config *config,
                                             uint64_t kinds,
                                             raftz_event_fn event_fn,
                                             void *user_data,
                                             raftz_destroy_fn destroy_fn,
                                             struct raftz_error **error);

/**
 * \brief Has the node's events put into a queue.
 *
 * It replaces what was set before, also with raftz_config_set_event_callback().
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param kinds Which: bits `1 << RAFTZ_EVENT_…`, or RAFTZ_EVENTS_ALL for all that this version has.
 * \param queue The queue. It may be freed before the node; then the events are lost.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_FORKED, or RAFTZ_UNSUPPORTED for kinds that do not exist yet.
 */
raftz_status raftz_config_set_event_queue(struct raftz_config *config,
                                          uint64_t kinds,
                                          struct raftz_queue *queue,
                                          struct raftz_error **error);

/**
 * \brief Has a function called with the node's log lines. Without one a node logs nothing.
 *
 * Threads: one at a time. Inside callbacks: yes. Blocks: no.
 *
 * \param config The configuration.
 * \param level Lines that matter less are left out: RAFTZ_LOG_ERROR to RAFTZ_LOG_TRACE.
 * \param log_fn The function; see raftz_log_fn.
 * \param user_data Given to it.
 * \param destroy_fn Called with the user data once neither the configuration nor a node started with it
 *        needs it any more; may be NULL. If the call fails it is not called.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_config_set_log(struct raftz_config *config,
                                  uint32_t level,
                                  raftz_log_fn log_fn,
                                  void *user_data,
                                  raftz_destroy_fn destroy_fn,
                                  struct raftz_error **error);

/**
 * \brief Makes a queue.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param opts How it is to be; NULL for the defaults.
 * \param queue [out] The queue, to be freed with raftz_queue_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or RAFTZ_THREAD (no descriptor).
 */
raftz_status raftz_queue_new(const struct raftz_queue_opts *opts,
                             struct raftz_queue **queue,
                             struct raftz_error **error);

/**
 * \brief A descriptor that is readable while the queue holds something: for poll, epoll and the like.
 *
 * Wait for it to be readable, then take with raftz_queue_next() and timeout 0 until RAFTZ_EMPTY. Do not
 * read from it, write to it or close it.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param queue The queue; for NULL the answer is -1.
 * \return The descriptor; it lives as long as the queue.
 */
int32_t raftz_queue_fd(const struct raftz_queue *queue);

/**
 * \brief Takes the oldest thing from a queue.
 *
 * Threads: any, several at once. Inside callbacks: with timeout 0. Blocks: up to the timeout.
 *
 * \param queue The queue.
 * \param timeout_ms How long to wait for something, in milliseconds: 0 not at all, RAFTZ_WAIT_FOREVER as
 *        long as it takes.
 * \param event [out] What was taken, to be freed with raftz_event_free().
 * \param error [out] Why not; may be NULL. RAFTZ_EMPTY, with which every drain ends, leaves no error.
 * \return RAFTZ_OK, RAFTZ_EMPTY, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_CLOSED or RAFTZ_FORKED.
 */
raftz_status raftz_queue_next(struct raftz_queue *queue,
                              uint32_t timeout_ms,
                              struct raftz_event **event,
                              struct raftz_error **error);

/**
 * \brief How many events of nodes were dropped, because nobody took them in time. Completions never are.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param queue The queue; for NULL the answer is 0.
 * \return How many, since the queue was made.
 */
uint64_t raftz_queue_dropped(const struct raftz_queue *queue);

/**
 * \brief Closes a queue: its consumers come to an end.
 *
 * New calls for it are refused with RAFTZ_CLOSED, and events of nodes are not put into it any more. Calls
 * under way go on, and what they end with can be taken as before. Once all of that is taken,
 * raftz_queue_next() returns RAFTZ_CLOSED instead of waiting, in every thread, and raftz_queue_fd() stays
 * readable. Closing a closed queue is nothing.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param queue The queue.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_queue_close(struct raftz_queue *queue,
                               struct raftz_error **error);

/**
 * \brief Frees a queue and what is in it. Calls under way go on; how they end is not told any more.
 *
 * Threads: any, once, with no other call on the queue under way or to come: raftz_queue_close() ends those
 * who take from it. Inside callbacks: yes. Blocks: no.
 *
 * \param queue The queue, or NULL, which is nothing.
 */
void raftz_queue_free(struct raftz_queue *queue);

/**
 * \brief What an event says.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param event The event.
 * \param info [in,out] Set its `size` to `sizeof(raftz_event_info)`; the rest is filled. What it points to
 *        lives as long as the event.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_event_get(const struct raftz_event *event,
                             struct raftz_event_info *info,
                             struct raftz_error **error);

/**
 * \brief Frees an event.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param event The event, or NULL, which is nothing.
 */
void raftz_event_free(struct raftz_event *event);

/**
 * \brief Answers the next command of a batch.
 *
 * Threads: the one that called `apply`. Inside callbacks: only there. Blocks: no.
 *
 * \param replies What `apply` was given.
 * \param reply The answer; copied.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_replies_push(struct raftz_replies *replies, struct raftz_slice reply);

/**
 * \brief Turns the next command of a batch down: an ordinary answer, alike on every node.
 *
 * Threads: the one that called `apply`. Inside callbacks: only there. Blocks: no.
 *
 * \param replies What `apply` was given.
 * \param reason Why; copied.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_replies_reject(struct raftz_replies *replies, struct raftz_slice reason);

/**
 * \brief Says why `apply` is about to fail. The words go into the fault's event and status.
 *
 * Threads: the one that called `apply`. Inside callbacks: only there. Blocks: no.
 *
 * \param replies What `apply` was given.
 * \param reason Why, in UTF-8; copied.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_replies_fail(struct raftz_replies *replies, struct raftz_slice reason);

/**
 * \brief Writes bytes.
 *
 * Threads: the one that called the callback. Inside callbacks: only there. Blocks: no.
 *
 * \param sink What the callback was given.
 * \param data The bytes; copied.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_sink_write(struct raftz_sink *sink, struct raftz_slice data);

/**
 * \brief Makes what is written to a query's sink a rejection: RAFTZ_OUTCOME_REJECTED for the asker.
 *
 * Threads: the one that called `query`. Inside callbacks: only there. Blocks: no.
 *
 * \param sink What `query` was given.
 * \return RAFTZ_OK or RAFTZ_NULL_ARG.
 */
raftz_status raftz_sink_reject(struct raftz_sink *sink);

/**
 * \brief Says why a callback with a sink is about to fail. The words go into the error.
 *
 * Threads: the one that called the callback. Inside callbacks: only there. Blocks: no.
 *
 * \param sink What the callback was given.
 * \param reason Why, in UTF-8; copied.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_sink_fail(struct raftz_sink *sink, struct raftz_slice reason);

/**
 * \brief Reads the next bytes of a snapshot.
 *
 * Threads: the one that called `restore`. Inside callbacks: only there. Blocks: for the disk.
 *
 * \param source What `restore` was given.
 * \param buffer Where they go; what lies behind them in it is overwritten as well.
 * \param capacity How many fit; at least 1.
 * \param read [out] How many came; 0 at the end of the snapshot.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_STORAGE.
 */
raftz_status raftz_source_read(struct raftz_source *source,
                               uint8_t *buffer,
                               size_t capacity,
                               size_t *read);

/**
 * \brief Makes a network.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param network [out] The network, to be freed with raftz_network_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK or RAFTZ_NULL_ARG.
 */
raftz_status raftz_network_new(struct raftz_network **network, struct raftz_error **error);

/**
 * \brief Frees a network. Nodes in it keep what they need of it.
 *
 * Threads: any, once. Inside callbacks: yes. Blocks: no.
 *
 * \param network The network, or NULL, which is nothing.
 */
void raftz_network_free(struct raftz_network *network);

/**
 * \brief Says what became of a submission, once for each.
 *
 * In which order submissions are completed does not matter: one that succeeded counts when all before it have succeeded
 * as well. After a failure nothing is submitted any more, what was submitted later has failed as well, and the node
 * stops with a fault that has the words in it; the process goes on.
 *
 * Threads: any; of one store several at once. Inside callbacks: yes. Blocks: no.
 *
 * \param completions What `open` was given.
 * \param number What `submit` was given.
 * \param status RAFTZ_OK: the writes survive a power cut. Any other: nobody can say, and nothing can be written any more.
 * \param words Why not, in UTF-8; copied. Empty for none.
 * \param error [out] Why the call failed; may be NULL.
 * \return RAFTZ_OK; RAFTZ_INVALID_ARG if it was completed already or there was no such submission, which changes
 *         nothing; RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_storage_complete(struct raftz_completions *completions,
                                    uint64_t number,
                                    raftz_status status,
                                    struct raftz_slice words,
                                    struct raftz_error **error);

/**
 * \brief Gives the next entry.
 *
 * Threads: the one that called `read`. Inside callbacks: only there. Blocks: no.
 *
 * \param entries What `read` was given.
 * \param bytes The entry, as it was submitted; copied.
 * \param wants_more [out] Whether the next entry is wanted as well. What is given after that is not taken.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, or RAFTZ_INVALID_ARG for bytes that are not the next entry: the read has failed
 *         then, whatever comes behind it.
 */
raftz_status raftz_entries_push(struct raftz_entries *entries,
                                struct raftz_slice bytes,
                                bool *wants_more);

/**
 * \brief Says why `read` is about to fail. The words go into what the node tells.
 *
 * Threads: the one that called `read`. Inside callbacks: only there. Blocks: no.
 *
 * \param entries What `read` was given.
 * \param reason Why, in UTF-8; copied.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_entries_fail(struct raftz_entries *entries, struct raftz_slice reason);

/**
 * \brief Puts a store to the test: writes, removals, reads beside writes, clean closes and new opens, first by hand,
 * then at random, and everything compared with what should be there. Some hundred writes in all.
 *
 * It cannot cut the power: whether submissions are completed before they are durable is for another test to say.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: for as long as the store takes.
 *
 * \param storage The store. It must be empty, and is of no other use afterwards.
 * \param opts How; NULL for the defaults.
 * \param error [out] Which rules it breaks and how, or why the test could not be made; may be NULL.
 * \return RAFTZ_OK if it breaks none; RAFTZ_STORAGE if it does, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or
 *         RAFTZ_IN_CALLBACK.
 */
raftz_status raftz_storage_conformance(const struct raftz_storage *storage,
                                       const struct raftz_conformance_opts *opts,
                                       struct raftz_error **error);

/**
 * \brief Says that a link stands. The handshake begins at once, if the node was dialled.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param links What `open` was given.
 * \param peer_id The node that was dialled; 0 if somebody has come.
 * \param context The program's end of the link, given to `send` and `end`; anything. If the call fails it is not.
 * \param link [out] The link's number. `send` may be called before this call returns.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BUSY if there are 1024 links, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
 */
raftz_status raftz_links_up(struct raftz_links *links,
                            uint64_t peer_id,
                            void *context,
                            uint64_t *link,
                            struct raftz_error **error);

/**
 * \brief Gives a message that arrived: whole, and as it was sent. It is looked through on this thread.
 *
 * What may wait of one link is bounded: 4 MiB or one message, and 64 KiB before the end of its handshake. Messages of one
 * link that are given by several threads at once have no order.
 *
 * Threads: any. Inside callbacks: yes; to wait there is RAFTZ_IN_CALLBACK. Blocks: up to the timeout, while too much
 * waits already.
 *
 * \param links What `open` was given.
 * \param link The link.
 * \param message The message; copied.
 * \param timeout_ms How long to wait for room, in milliseconds; 0 to try.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK; RAFTZ_BUSY if too much waits, which changes nothing; RAFTZ_INVALID_ARG for what is no message, too
 *         large or garbled, and the link is ended then, or for a link that there never was; RAFTZ_CLOSED for one that has
 *         ended; RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
 */
raftz_status raftz_links_deliver(struct raftz_links *links,
                                 uint64_t link,
                                 struct raftz_slice message,
                                 uint32_t timeout_ms,
                                 struct raftz_error **error);

/**
 * \brief As raftz_links_deliver(), without a copy: the message is handed over.
 *
 * Threads: any. Inside callbacks: yes; to wait there is RAFTZ_IN_CALLBACK. Blocks: up to the timeout, while too much
 * waits already.
 *
 * \param links What `open` was given.
 * \param link The link.
 * \param message The message; it is the library's from now on, whatever becomes of the call. Entries in it may stay in
 *        memory for long.
 * \param timeout_ms How long to wait for room, in milliseconds; 0 to try.
 * \param error [out] Why not; may be NULL.
 * \return As raftz_links_deliver().
 */
raftz_status raftz_links_deliver_bytes(struct raftz_links *links,
                                       uint64_t link,
                                       struct raftz_bytes *message,
                                       uint32_t timeout_ms,
                                       struct raftz_error **error);

/**
 * \brief Says that a link takes messages again, after `send` took fewer than it was given.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param links What `open` was given.
 * \param link The link.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, also if nothing waits; RAFTZ_INVALID_ARG for a link that there never was, RAFTZ_CLOSED for one that
 *         has ended, RAFTZ_NULL_ARG, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
 */
raftz_status raftz_links_ready(struct raftz_links *links,
                               uint64_t link,
                               struct raftz_error **error);

/**
 * \brief Says that a link is gone. What was delivered before still counts; `end` follows.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param links What `open` was given.
 * \param link The link.
 * \param words Why, in UTF-8; copied, and cut to 512 bytes. Empty for none.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK; RAFTZ_INVALID_ARG for a link that there never was, RAFTZ_CLOSED for one that has ended already,
 *         RAFTZ_NULL_ARG, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
 */
raftz_status raftz_links_down(struct raftz_links *links,
                              uint64_t link,
                              struct raftz_slice words,
                              struct raftz_error **error);

/**
 * \brief Says that a node cannot be reached. The node tells of it, and whoever waits in vain is told why.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param links What `open` was given.
 * \param peer_id The node.
 * \param words Why, in UTF-8; copied, and cut to 512 bytes. Empty for none.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BUSY if too many others wait to be told, RAFTZ_SHUT_DOWN or
 *         RAFTZ_FORKED.
 */
raftz_status raftz_links_unreachable(struct raftz_links *links,
                                     uint64_t peer_id,
                                     struct raftz_slice words,
                                     struct raftz_error **error);

/**
 * \brief How large the largest message is that can be sent or arrive. What claims to be larger is no message.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param links What `open` was given; for NULL the answer is 0.
 * \return The number of bytes.
 */
size_t raftz_links_bytes_max(const struct raftz_links *links);

/**
 * \brief Frees links. The node does not notice; links that are up stay, and nothing more is told of them.
 *
 * Threads: any, once, and no other call beside or after it. Inside callbacks: yes. Blocks: no.
 *
 * \param links What `open` was given, or NULL, which is nothing.
 */
void raftz_links_free(struct raftz_links *links);

/**
 * \brief What a node has counted and measured, in numbers.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node.
 * \param info [in,out] Set its `size` to `sizeof(raftz_metrics_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_metrics(const struct raftz_node *node,
                           struct raftz_metrics_info *info,
                           struct raftz_error **error);

/**
 * \brief What a node has measured of another member. Of one of which it knows nothing, all is 0 but the id: only
 * a leader knows how far others are, and who exchanges a snapshot with one knows how far that is.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node.
 * \param peer_id The other member's id.
 * \param info [in,out] Set its `size` to `sizeof(raftz_peer_metrics_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG (a wrong size, or `peer_id` 0) or RAFTZ_FORKED.
 */
raftz_status raftz_metrics_peer(const struct raftz_node *node,
                                uint64_t peer_id,
                                struct raftz_peer_metrics_info *info,
                                struct raftz_error **error);

/**
 * \brief What a node has counted and measured, as Prometheus reads it: OpenMetrics text, each name with the
 * prefix `raftz_` and the labels `node` and `group`, that of a peer with `peer`, too.
 *
 * The library opens no port. Serve the text where you like, as
 * `application/openmetrics-text; version=1.0.0; charset=utf-8`.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node.
 * \param metrics [out] The text, without NUL at the end, to be freed with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_metrics_text(const struct raftz_node *node,
                                struct raftz_bytes **metrics,
                                struct raftz_error **error);

/**
 * \brief Whether the configured directory, or the program's own store, holds a node's data. Memory always does.
 *
 * Threads: one at a time for the configuration. Inside callbacks: yes. Blocks: for the disk.
 *
 * \param config The configuration.
 * \param is_formatted [out] Whether it does.
 * \param error [out] Why nobody can say; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_STORAGE.
 */
raftz_status raftz_node_is_formatted(const struct raftz_config *config,
                                     bool *is_formatted,
                                     struct raftz_error **error);

/**
 * \brief Founds a cluster on this node: formats its *empty* directory, or the program's own store, with the founding
 * members. Every founder does this once, with the same list. Memory storage needs none of it.
 *
 * Threads: one at a time for the configuration. Inside callbacks: yes. Blocks: for the disk.
 *
 * \param config The configuration.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_CONFIG, or RAFTZ_STORAGE for a directory that is not empty.
 */
raftz_status raftz_node_bootstrap(const struct raftz_config *config,
                                  struct raftz_error **error);

/**
 * \brief Starts a node. Never formats anything: found the cluster first, with raftz_node_bootstrap().
 *
 * A process that forks does so before, or after all nodes were freed, or its child runs another program (exec): a
 * child of a process that had nodes can have none.
 *
 * Threads: any; one at a time for the configuration. Inside callbacks: yes. Blocks: for the disk.
 *
 * \param config The configuration; copied.
 * \param machine The state machine; copied. NULL: one that comes with the library, by default the key-value
 *        store.
 * \param opts How it is started; NULL for the defaults.
 * \param node [out] The node, to be freed with raftz_node_free().
 * \param error [out] Why not; nothing runs then. May be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH, RAFTZ_UNSUPPORTED,
 *         RAFTZ_FORKED (the parent process had nodes, or the queue for its events is its), RAFTZ_CONFIG, RAFTZ_STORAGE,
 *         RAFTZ_NETWORK, RAFTZ_MACHINE or RAFTZ_THREAD.
 */
raftz_status raftz_node_start(const struct raftz_config *config,
                              const struct raftz_machine *machine,
                              const struct raftz_start_opts *opts,
                              struct raftz_node **node,
                              struct raftz_error **error);

/**
 * \brief Stops a node: refuses new calls, hands over if it leads, answers calls in flight, seals and closes the
 * log, and waits until all its threads have ended; after RAFTZ_OK none of its callbacks runs any more. May be
 * called again.
 *
 * Handing over takes no more than half of the timeout and three of the longest election timeouts.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node. It still has to be freed.
 * \param timeout_ms How long to wait, in milliseconds.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK; RAFTZ_STILL_RUNNING if a callback does not return: every call has been answered all the
 *         same, and what runs ends by itself once it returns; RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK or
 *         RAFTZ_FORKED.
 */
raftz_status raftz_node_stop(struct raftz_node *node,
                             uint32_t timeout_ms,
                             struct raftz_error **error);

/**
 * \brief Frees a node, and stops it first if it runs: quietly, and for two seconds at most. Call
 * raftz_node_stop() to know that all of it has ended.
 *
 * In a child of the process that started the node it only forgets it.
 *
 * Threads: any, once, and no other call beside or after it. Inside callbacks: yes; then it does not wait.
 * Blocks: up to two seconds.
 *
 * \param node The node, or NULL, which is nothing.
 */
void raftz_node_free(struct raftz_node *node);

/**
 * \brief A node's id.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; for NULL the answer is 0.
 * \return The id; in a child of the process that started the node 0.
 */
uint64_t raftz_node_id(const struct raftz_node *node);

/**
 * \brief Where a node listens: `host:port`, with the port that it really got; empty if it does not.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node.
 * \param address [out] The address, to be freed with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_node_listen_address(const struct raftz_node *node,
                                       struct raftz_bytes **address,
                                       struct raftz_error **error);

/**
 * \brief Waits until a node knows a leader.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node.
 * \param timeout_ms How long to wait, in milliseconds.
 * \param leader_id [out] Who leads; may be NULL.
 * \param error [out] Who is out of reach and why; may be NULL.
 * \return RAFTZ_OK, RAFTZ_LEADER_TIMEOUT, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED
 *         or RAFTZ_FORKED.
 */
raftz_status raftz_node_wait_for_leader(const struct raftz_node *node,
                                        uint32_t timeout_ms,
                                        uint64_t *leader_id,
                                        struct raftz_error **error);

/**
 * \brief Waits until a node's machine has applied everything up to an index, so that a read of it sees what a
 * command did.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node.
 * \param index The index, as raftz_reply and raftz_outcome give it.
 * \param timeout_ms How long to wait, in milliseconds.
 * \param error [out] How far it is, who leads, and who is out of reach; may be NULL.
 * \return RAFTZ_OK, RAFTZ_APPLY_TIMEOUT, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED
 *         or RAFTZ_FORKED.
 */
raftz_status raftz_node_wait_for_applied(const struct raftz_node *node,
                                         uint64_t index,
                                         uint32_t timeout_ms,
                                         struct raftz_error **error);

/**
 * \brief Takes a snapshot of everything that a node's machine has applied, and waits until it is on disk.
 *
 * Nodes take snapshots by themselves; see `snapshot_log_bytes` in raftz_config. The log behind a snapshot becomes
 * shorter by itself. Does nothing more if the newest snapshot is as new as the machine.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node.
 * \param timeout_ms How long to wait, in milliseconds; the snapshot may still come after it.
 * \param index [out] The last index that the snapshot covers; may be NULL.
 * \param error [out] Why there is none; may be NULL.
 * \return RAFTZ_OK, RAFTZ_SNAPSHOT_UNAVAILABLE, RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN,
 *         RAFTZ_FAULTED or RAFTZ_FORKED.
 */
raftz_status raftz_node_snapshot(const struct raftz_node *node,
                                 uint32_t timeout_ms,
                                 uint64_t *index,
                                 struct raftz_error **error);

/**
 * \brief Makes a node stand for election now instead of waiting for its timeout. It wins only if the others
 * agree.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_node_campaign(struct raftz_node *node,
                                 struct raftz_error **error);

/**
 * \brief Proposes a command. Returns at once; the completion is called when the command is committed and
 * applied, refused, or has run out of time.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; a follower hands the command to the leader.
 * \param command The command; copied.
 * \param opts How it is to be treated; NULL for the defaults.
 * \param done_fn Told how it ended, exactly once if the call succeeds and never if it fails; never from
 *        within this call.
 * \param user_data Given to `done_fn`.
 * \param error [out] Why the command was not accepted; it certainly has no effect then. May be NULL.
 * \return RAFTZ_OK (accepted), RAFTZ_BUSY, RAFTZ_TOO_LARGE, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_NULL_ARG,
 *         RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or RAFTZ_FORKED.
 */
raftz_status raftz_propose(struct raftz_node *node,
                           struct raftz_slice command,
                           const struct raftz_propose_opts *opts,
                           raftz_done_fn done_fn,
                           void *user_data,
                           struct raftz_error **error);

/**
 * \brief As raftz_propose(), without a copy of the command.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; a follower hands the command to the leader.
 * \param command The command. It is taken over: whether the call succeeds or fails, do not use or free it
 *        any more.
 * \param opts How it is to be treated; NULL for the defaults.
 * \param done_fn Told how it ended, exactly once if the call succeeds and never if it fails.
 * \param user_data Given to `done_fn`.
 * \param error [out] Why the command was not accepted; it certainly has no effect then. May be NULL.
 * \return As raftz_propose().
 */
raftz_status raftz_propose_bytes(struct raftz_node *node,
                                 struct raftz_bytes *command,
                                 const struct raftz_propose_opts *opts,
                                 raftz_done_fn done_fn,
                                 void *user_data,
                                 struct raftz_error **error);

/**
 * \brief Proposes commands that reach the log in this order, though other callers' may stand between them.
 * One completion tells how each of them ended.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; a follower hands the commands to the leader.
 * \param commands The commands; copied.
 * \param count How many; with 0 the completion is called all the same.
 * \param opts How they are to be treated; NULL for the defaults.
 * \param done_fn Told how they ended, exactly once if the call succeeds and never if it fails; never from
 *        within this call.
 * \param user_data Given to `done_fn`.
 * \param error [out] Why none of the commands was accepted. May be NULL.
 * \return As raftz_propose().
 */
raftz_status raftz_propose_batch(struct raftz_node *node,
                                 const struct raftz_slice *commands,
                                 size_t count,
                                 const struct raftz_propose_opts *opts,
                                 raftz_batch_done_fn done_fn,
                                 void *user_data,
                                 struct raftz_error **error);

/**
 * \brief Proposes commands, as raftz_propose_batch(), and has their completion put into a queue: an event
 * of kind RAFTZ_EVENT_COMPLETION with the user data and the outcomes.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; a follower hands the commands to the leader.
 * \param commands The commands; copied.
 * \param count How many.
 * \param opts How they are to be treated; NULL for the defaults.
 * \param queue The queue.
 * \param user_data Given back with the event.
 * \param error [out] Why none of the commands was accepted. May be NULL.
 * \return As raftz_propose(); RAFTZ_BUSY also when the queue is at its bound, RAFTZ_INVALID_ARG when so
 *         many never fit it, RAFTZ_CLOSED when it is closed.
 */
raftz_status raftz_propose_queued(struct raftz_node *node,
                                  const struct raftz_slice *commands,
                                  size_t count,
                                  const struct raftz_propose_opts *opts,
                                  struct raftz_queue *queue,
                                  void *user_data,
                                  struct raftz_error **error);

/**
 * \brief Proposes a command and waits until it is committed and applied.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout and a quarter of a second.
 *
 * \param node The node; a follower hands the command to the leader.
 * \param command The command; copied.
 * \param opts How it is to be treated; NULL for the defaults. Its timeout is how long the call may take.
 * \param reply [in,out] Set its `size` to `sizeof(raftz_reply)`; the rest is filled when the command is
 *        done. Free its `bytes`.
 * \param error [out] Why it was not done; ask raftz_error_is_outcome_unknown() whether it may have had its
 *        effect all the same. May be NULL.
 * \return RAFTZ_OK (done), a refusal (RAFTZ_NOT_LEADER to RAFTZ_TERM_MISMATCH), an unknown outcome
 *         (RAFTZ_UNKNOWN_…), RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or RAFTZ_FORKED.
 */
raftz_status raftz_propose_wait(struct raftz_node *node,
                                struct raftz_slice command,
                                const struct raftz_propose_opts *opts,
                                struct raftz_reply *reply,
                                struct raftz_error **error);

/**
 * \brief Asks the state machine. Returns at once; the completion is called with the answer.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node whose machine is asked.
 * \param request The question; copied.
 * \param opts What the read may see, and how long it may take; NULL: RAFTZ_READ_LINEARIZABLE.
 * \param done_fn Told the answer, exactly once if the call succeeds and never if it fails; never from within
 *        this call. Index and term of its outcome are 0.
 * \param user_data Given to `done_fn`.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK (accepted), RAFTZ_BUSY, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG,
 *         RAFTZ_ABI_MISMATCH or RAFTZ_FORKED.
 */
raftz_status raftz_read(const struct raftz_node *node,
                        struct raftz_slice request,
                        const struct raftz_read_opts *opts,
                        raftz_done_fn done_fn,
                        void *user_data,
                        struct raftz_error **error);

/**
 * \brief Asks the state machine, as raftz_read(), and has the answer put into a queue: an event of kind
 * RAFTZ_EVENT_COMPLETION with the user data and one outcome, whose index and term are 0.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node whose machine is asked.
 * \param request The question; copied.
 * \param opts What the read may see, and how long it may take; NULL: RAFTZ_READ_LINEARIZABLE.
 * \param queue The queue.
 * \param user_data Given back with the event.
 * \param error [out] Why not; may be NULL.
 * \return As raftz_read(); RAFTZ_BUSY also when the queue is at its bound, RAFTZ_CLOSED when it is closed.
 */
raftz_status raftz_read_queued(const struct raftz_node *node,
                               struct raftz_slice request,
                               const struct raftz_read_opts *opts,
                               struct raftz_queue *queue,
                               void *user_data,
                               struct raftz_error **error);

/**
 * \brief Asks the state machine and waits for the answer.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node whose machine is asked.
 * \param request The question; copied.
 * \param opts What the read may see, and how long it may take; NULL: RAFTZ_READ_LINEARIZABLE.
 * \param reply [in,out] Set its `size` to `sizeof(raftz_reply)`; the rest is filled. Free its `bytes`.
 * \param error [out] Why there is no answer; may be NULL.
 * \return RAFTZ_OK, RAFTZ_LEADER_TIMEOUT, RAFTZ_APPLY_TIMEOUT, RAFTZ_READ_TIMEOUT, RAFTZ_READ_FAILED, RAFTZ_BUSY,
 *         RAFTZ_FAULTED, RAFTZ_SHUT_DOWN, RAFTZ_IN_CALLBACK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_ABI_MISMATCH or
 *         RAFTZ_FORKED.
 */
raftz_status raftz_read_wait(const struct raftz_node *node,
                             struct raftz_slice request,
                             const struct raftz_read_opts *opts,
                             struct raftz_reply *reply,
                             struct raftz_error **error);

/**
 * \brief Asks a node how it is.
 *
 * Threads: any. Inside callbacks: yes. Blocks: for microseconds; half a second if the node cannot answer.
 *
 * \param node The node.
 * \param state [out] How it is, to be freed with raftz_state_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_node_state(const struct raftz_node *node,
                              struct raftz_state **state,
                              struct raftz_error **error);

/**
 * \brief Frees a state.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param state The state, or NULL, which is nothing.
 */
void raftz_state_free(struct raftz_state *state);

/**
 * \brief What a state says.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param state The state.
 * \param info [in,out] Set its `size` to `sizeof(raftz_state_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_state_get(const struct raftz_state *state,
                             struct raftz_state_info *info,
                             struct raftz_error **error);

/**
 * \brief What a state says of another member.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param state The state.
 * \param at Which, from 0 to `peer_count` - 1.
 * \param info [in,out] Set its `size` to `sizeof(raftz_peer_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_state_peer(const struct raftz_state *state,
                              size_t at,
                              struct raftz_peer_info *info,
                              struct raftz_error **error);

/**
 * \brief Has another node lead. Returns at once; the completion is called when it does, or when it is known
 * that nothing comes of it.
 *
 * The other node is brought up to date first. Commands that come meanwhile are held for a moment, and done by
 * whoever leads then. If nothing is decided within the timeout this node leads on.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; it must lead.
 * \param target_id Who is to lead, a voter; 0: whoever suits best.
 * \param timeout_ms By when it must be decided, in milliseconds.
 * \param done_fn Told how it ended, exactly once if the call succeeds and never if it fails; never from within
 *        this call. Its outcome has the status RAFTZ_OK and the new leader in `leader_id`, or the status
 *        RAFTZ_NOT_LEADER, RAFTZ_TRANSFER_TARGET, RAFTZ_TRANSFER_UNFIT, RAFTZ_TRANSFER_TIMEOUT,
 *        RAFTZ_TRANSFER_UNDER_WAY, RAFTZ_TRANSFER_OVERTAKEN, RAFTZ_SHUT_DOWN or RAFTZ_FAULTED.
 * \param user_data Given to `done_fn`.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK (accepted), RAFTZ_BUSY, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_transfer_leadership(struct raftz_node *node,
                                       uint64_t target_id,
                                       uint32_t timeout_ms,
                                       raftz_done_fn done_fn,
                                       void *user_data,
                                       struct raftz_error **error);

/**
 * \brief Has another node lead, as raftz_transfer_leadership(), and has the end put into a queue: an event of
 * kind RAFTZ_EVENT_COMPLETION with the user data and one outcome.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; it must lead.
 * \param target_id Who is to lead, a voter; 0: whoever suits best.
 * \param timeout_ms By when it must be decided, in milliseconds.
 * \param queue The queue.
 * \param user_data Given back with the event.
 * \param error [out] Why not; may be NULL.
 * \return As raftz_transfer_leadership(); RAFTZ_BUSY also when the queue is at its bound, RAFTZ_CLOSED when
 *         it is closed.
 */
raftz_status raftz_transfer_leadership_queued(struct raftz_node *node,
                                              uint64_t target_id,
                                              uint32_t timeout_ms,
                                              struct raftz_queue *queue,
                                              void *user_data,
                                              struct raftz_error **error);

/**
 * \brief Has another node lead, as raftz_transfer_leadership(), and waits until it does.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node; it must lead.
 * \param target_id Who is to lead, a voter; 0: whoever suits best.
 * \param timeout_ms By when it must be decided, in milliseconds.
 * \param leader_id [out] Who leads now; may be NULL.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NOT_LEADER, RAFTZ_TRANSFER_TARGET, RAFTZ_TRANSFER_UNFIT, RAFTZ_TRANSFER_TIMEOUT,
 *         RAFTZ_TRANSFER_UNDER_WAY, RAFTZ_TRANSFER_OVERTAKEN, RAFTZ_SHUT_DOWN, RAFTZ_FAULTED,
 *         RAFTZ_IN_CALLBACK, RAFTZ_NULL_ARG or RAFTZ_FORKED.
 */
raftz_status raftz_transfer_leadership_wait(struct raftz_node *node,
                                            uint64_t target_id,
                                            uint32_t timeout_ms,
                                            uint64_t *leader_id,
                                            struct raftz_error **error);

/**
 * \brief Has the best of the other nodes lead, and leaves elections to others for a few election timeouts.
 * Returns at once; the completion is called when another leads, or when it is known that none does.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; it must lead, and leads on if nobody else is fit to.
 * \param timeout_ms By when it must be decided, in milliseconds.
 * \param done_fn Told how it ended, as by raftz_transfer_leadership().
 * \param user_data Given to `done_fn`.
 * \param error [out] Why not; may be NULL.
 * \return As raftz_transfer_leadership().
 */
raftz_status raftz_step_down(struct raftz_node *node,
                             uint32_t timeout_ms,
                             raftz_done_fn done_fn,
                             void *user_data,
                             struct raftz_error **error);

/**
 * \brief Has the best of the other nodes lead, as raftz_step_down(), and has the end put into a queue: an event
 * of kind RAFTZ_EVENT_COMPLETION with the user data and one outcome.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param node The node; it must lead, and leads on if nobody else is fit to.
 * \param timeout_ms By when it must be decided, in milliseconds.
 * \param queue The queue.
 * \param user_data Given back with the event.
 * \param error [out] Why not; may be NULL.
 * \return As raftz_transfer_leadership_queued().
 */
raftz_status raftz_step_down_queued(struct raftz_node *node,
                                    uint32_t timeout_ms,
                                    struct raftz_queue *queue,
                                    void *user_data,
                                    struct raftz_error **error);

/**
 * \brief Has the best of the other nodes lead, as raftz_step_down(), and waits until it does.
 *
 * Threads: any. Inside callbacks: no (RAFTZ_IN_CALLBACK). Blocks: up to the timeout.
 *
 * \param node The node; it must lead, and leads on if nobody else is fit to.
 * \param timeout_ms By when it must be decided, in milliseconds.
 * \param leader_id [out] Who leads now; may be NULL.
 * \param error [out] Why not; may be NULL.
 * \return As raftz_transfer_leadership_wait().
 */
raftz_status raftz_step_down_wait(struct raftz_node *node,
                                  uint32_t timeout_ms,
                                  uint64_t *leader_id,
                                  struct raftz_error **error);

/**
 * \brief Waits until a node stands in another way than before. What has changed in between is skipped: a
 * program that is slow learns the latest.
 *
 * Nothing in it changes with every command, so that load wakes nobody.
 *
 * Threads: any, several at once. Inside callbacks: with timeout 0. Blocks: up to the timeout.
 *
 * \param node The node.
 * \param after_version The version that the caller has seen; 0: none, and the answer comes at once.
 * \param timeout_ms How long to wait, in milliseconds: 0 not at all, RAFTZ_WAIT_FOREVER as long as it takes.
 * \param info [in,out] Set its `size` to `sizeof(raftz_standing_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL. RAFTZ_EMPTY leaves no error.
 * \return RAFTZ_OK; RAFTZ_EMPTY if nothing has changed before the timeout; RAFTZ_SHUT_DOWN or RAFTZ_FAULTED if
 *         nothing will change any more; RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_IN_CALLBACK or RAFTZ_FORKED.
 */
raftz_status raftz_watch_wait(const struct raftz_node *node,
                              uint64_t after_version,
                              uint32_t timeout_ms,
                              struct raftz_standing_info *info,
                              struct raftz_error **error);

/**
 * \brief A command for the key-value store: gives a key a value. Its answer is RAFTZ_KV_STORED.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param key The key, at least one byte.
 * \param value The value, possibly empty.
 * \param command [out] The command, to be proposed; free it with raftz_bytes_free(), or hand it to
 *        raftz_propose_bytes().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_set(struct raftz_slice key,
                          struct raftz_slice value,
                          struct raftz_bytes **command,
                          struct raftz_error **error);

/**
 * \brief A command for the key-value store: takes a key out. Its answer is RAFTZ_KV_DELETED.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param key The key, at least one byte.
 * \param command [out] The command, as of raftz_kv_set().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_delete(struct raftz_slice key,
                             struct raftz_bytes **command,
                             struct raftz_error **error);

/**
 * \brief A command for the key-value store: writes a value if the present one is the expected one. Its answer
 * is RAFTZ_KV_SWAPPED, RAFTZ_KV_NOT_SWAPPED or RAFTZ_KV_NOT_SWAPPED_LARGE.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param key The key, at least one byte.
 * \param expected What must be there; NULL: the key must be absent.
 * \param value What shall be there; NULL: take the key out.
 * \param command [out] The command, as of raftz_kv_set().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_compare_and_set(struct raftz_slice key,
                                      const struct raftz_slice *expected,
                                      const struct raftz_slice *value,
                                      struct raftz_bytes **command,
                                      struct raftz_error **error);

/**
 * \brief A command for the key-value store: adds to the decimal number under a key; an absent key counts as 0.
 * Its answer is RAFTZ_KV_NUMBER.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param key The key, at least one byte.
 * \param by What to add, possibly negative.
 * \param command [out] The command, as of raftz_kv_set().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_increment(struct raftz_slice key,
                                int64_t by,
                                struct raftz_bytes **command,
                                struct raftz_error **error);

/**
 * \brief A question to the key-value store: the value under a key. Its answer is RAFTZ_KV_VALUE.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param key The key.
 * \param request [out] The question, for raftz_read(); free it with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_get(struct raftz_slice key,
                          struct raftz_bytes **request,
                          struct raftz_error **error);

/**
 * \brief A question to the key-value store: keys that begin with a prefix, in the order of their bytes, and
 * their values. Its answer is RAFTZ_KV_SCANNED. To go on where an answer with `is_on` ended, ask again with
 * its last key as `after`.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param prefix What the keys begin with; empty: all keys.
 * \param after Only keys beyond this one; NULL: from the first.
 * \param limit At most so many; the store has a limit of its own.
 * \param request [out] The question, as of raftz_kv_get().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_scan(struct raftz_slice prefix,
                           const struct raftz_slice *after,
                           uint32_t limit,
                           struct raftz_bytes **request,
                           struct raftz_error **error);

/**
 * \brief A question to the key-value store: its size and a digest of all of it, equal on nodes that have applied
 * the same. Its answer is RAFTZ_KV_DIGEST.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param request [out] The question, as of raftz_kv_get().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK or RAFTZ_NULL_ARG.
 */
raftz_status raftz_kv_digest(struct raftz_bytes **request,
                             struct raftz_error **error);

/**
 * \brief Reads an answer of the key-value store.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param bytes What the command or question was answered with.
 * \param flags The flags that came with it: RAFTZ_OUTCOME_REJECTED or 0.
 * \param reply [out] The answer, to be freed with raftz_kv_reply_free().
 * \param error [out] Why the bytes are none; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_reply_read(struct raftz_slice bytes,
                                 uint32_t flags,
                                 struct raftz_kv_reply **reply,
                                 struct raftz_error **error);

/**
 * \brief What an answer says.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param reply The answer.
 * \param info [in,out] Set its `size` to `sizeof(raftz_kv_reply_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_reply_get(const struct raftz_kv_reply *reply,
                                struct raftz_kv_reply_info *info,
                                struct raftz_error **error);

/**
 * \brief A key and its value of an answer of kind RAFTZ_KV_SCANNED.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param reply The answer.
 * \param at Which, from 0 to `count` - 1.
 * \param key [out] The key; it lives as long as the answer.
 * \param value [out] The value; it lives as long as the answer.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_kv_reply_entry(const struct raftz_kv_reply *reply,
                                  size_t at,
                                  struct raftz_slice *key,
                                  struct raftz_slice *value,
                                  struct raftz_error **error);

/**
 * \brief Frees an answer.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param reply The answer, or NULL, which is nothing.
 */
void raftz_kv_reply_free(struct raftz_kv_reply *reply);

/**
 * \brief Runs a whole cluster with machines of the program's own, in virtual time, under faults that the seed draws:
 * processes die, networks split, disks lie, clocks drift. Replicas, log and codec are the library's own; no node,
 * thread, socket or file is made.
 *
 * All the time it is checked that nothing promised is lost and that every machine answers as another one that applied
 * the same commands; in the end, that their snapshots are equal. A callback of a machine that fails is a violation,
 * too. The same seed with the same options gives the same report, if machine and workload follow from nothing
 * else. To try many seeds is to call this many times, also on several threads at once.
 *
 * `create` makes a machine for every life of every node, and one for comparison; all are destroyed before the call
 * returns, and those of one run before the next begins. `query` and `applied_index` are not called: in some runs
 * machines persist themselves, which here means that a node keeps its machine when it dies. Snapshots should have no
 * more than 100000 bytes: how soon a healed cluster must work again is reckoned with that.
 *
 * Threads: any; callbacks run on the one that calls, and blocking calls are refused in them. Inside callbacks: no
 * (RAFTZ_IN_CALLBACK). Blocks: for as long as a run takes, mostly less than a second, and so many more as
 * `shrink_runs` says.
 *
 * \param machine The machine. Its `create` is required. Without snapshots only answers are compared.
 * \param seed Any number.
 * \param opts How; NULL for the defaults.
 * \param report [out] What became of it, to be freed with raftz_sim_report_free(): also if something was found wrong.
 * \param error [out] Why there was no run, or none of any worth; may be NULL.
 * \return RAFTZ_OK, RAFTZ_MACHINE if a machine was not created, RAFTZ_CALLBACK_FAILED if `workload` failed,
 *         RAFTZ_TOO_LARGE if its command was, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BAD_UTF8, RAFTZ_ABI_MISMATCH or
 *         RAFTZ_IN_CALLBACK.
 */
raftz_status raftz_sim_run(const struct raftz_machine *machine,
                           uint64_t seed,
                           const struct raftz_sim_opts *opts,
                           struct raftz_sim_report **report,
                           struct raftz_error **error);

/**
 * \brief Frees a report.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param report The report, or NULL, which is nothing.
 */
void raftz_sim_report_free(struct raftz_sim_report *report);

/**
 * \brief What a report says.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param report The report.
 * \param info [in,out] Set its `size` to `sizeof(raftz_sim_report_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_sim_report_get(const struct raftz_sim_report *report,
                                  struct raftz_sim_report_info *info,
                                  struct raftz_error **error);

/**
 * \brief Draws one of the numbers from 0 to `count` - 1.
 *
 * Threads: the one that called `workload`. Inside callbacks: only there. Blocks: no.
 *
 * \param chooser What `workload` was given; for NULL the answer is 0.
 * \param count How many there are; of 0 or 1 the answer is 0.
 * \return The number.
 */
uint64_t raftz_sim_chooser_below(struct raftz_sim_chooser *chooser, uint64_t count);

/**
 * \brief Fills a buffer with random bytes.
 *
 * Threads: the one that called `workload`. Inside callbacks: only there. Blocks: no.
 *
 * \param chooser What `workload` was given.
 * \param buffer Where they go.
 * \param capacity How many.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG or RAFTZ_INVALID_ARG.
 */
raftz_status raftz_sim_chooser_fill(struct raftz_sim_chooser *chooser,
                                    uint8_t *buffer,
                                    size_t capacity);

/**
 * \brief Makes a core: one that goes on with what a disk held, or, with RAFTZ_CORE_FOUNDS, a founder of a new cluster.
 *
 * The actions begin with a RAFTZ_ACTION_PERSIST, of the record of this life. Until RAFTZ_INPUT_PERSISTED has said that it
 * is durable, the core takes nothing else: RAFTZ_BUSY.
 *
 * If entries are missing, or were changed, the core begins without them, tells so by RAFTZ_EVENT_STORAGE_TROUBLE, and does
 * not stand for election until the leader has given them to it anew. If the record was, or if the node is alone in its
 * cluster, it does not begin.
 *
 * Threads: any. Inside callbacks: yes. Blocks: no.
 *
 * \param config Of this the core takes `node_id`, `cluster_id`, `founders`, `seed`, the timeouts of elections, heartbeats
 *        and disks, `election_priority`, `lease_reads` and `lease_drift_percent`, `entry_bytes_max`, and the bounds of
 *        appends, windows, uncommitted and unapplied entries, memory and what is applied at once. Copied.
 * \param opts What it begins with. Copied.
 * \param boot_us The present time: microseconds of a clock that never goes back and does not stand still while the
 *        machine sleeps (CLOCK_BOOTTIME), or virtual ones.
 * \param wall_us The present time by the wall clock, in microseconds since 1970. Decides nothing; the cluster's clock leans
 *        towards it.
 * \param core [out] The core, to be freed with raftz_core_free().
 * \param actions [out] What is to be done first. They live until the next raftz_core_step() of the core that succeeds, or
 *        its end.
 * \param count [out] How many.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_CONFIG, RAFTZ_STORAGE (what the disk held is of no use), RAFTZ_THREAD (the system gave no
 *         randomness), RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG or RAFTZ_ABI_MISMATCH.
 */
raftz_status raftz_core_new(const struct raftz_config *config,
                            const struct raftz_core_opts *opts,
                            uint64_t boot_us,
                            uint64_t wall_us,
                            struct raftz_core **core,
                            const struct raftz_core_action **actions,
                            size_t *count,
                            struct raftz_error **error);

/**
 * \brief Tells a core what happened, and gives what is to be done about it.
 *
 * Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
 *
 * \param core The core.
 * \param boot_us The present time, as for raftz_core_new(). One before the last is taken for the last.
 * \param wall_us The present time by the wall clock.
 * \param input What happened. It and what it points to are read during the call.
 * \param actions [out] What is to be done. The actions, and all that they point to, live until the next raftz_core_step() of
 *        this core that succeeds, or its end.
 * \param count [out] How many.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK. With any other status but RAFTZ_PANIC nothing has changed: RAFTZ_BAD_MESSAGE (the message came garbled:
 *         drop it), RAFTZ_UNSUPPORTED (a kind of input or message that this version does not know), RAFTZ_INVALID_ARG (an
 *         answer to what was not asked, an id of 0), RAFTZ_STORAGE (a snapshot's base that was changed), RAFTZ_NULL_ARG,
 *         RAFTZ_BUSY (the first write is not durable, too many reads are open, or another thread is in a call).
 *         RAFTZ_PANIC: the core is of no more use.
 */
raftz_status raftz_core_step(struct raftz_core *core,
                             uint64_t boot_us,
                             uint64_t wall_us,
                             const struct raftz_core_input *input,
                             const struct raftz_core_action **actions,
                             size_t *count,
                             struct raftz_error **error);

/**
 * \brief When a core wants RAFTZ_INPUT_TICK. May change with every step.
 *
 * Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
 *
 * \param core The core.
 * \param deadline_us [out] The time, by the clock of `boot_us`; UINT64_MAX for never. It may have passed.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
 */
raftz_status raftz_core_next_deadline(const struct raftz_core *core,
                                      uint64_t *deadline_us,
                                      struct raftz_error **error);

/**
 * \brief How a core is.
 *
 * Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
 *
 * \param core The core.
 * \param info [in,out] Set its `size` to `sizeof(raftz_core_info)`; the rest is filled.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
 */
raftz_status raftz_core_status(const struct raftz_core *core,
                               struct raftz_core_info *info,
                               struct raftz_error **error);

/**
 * \brief A hash of everything that a core's future depends on, with times relative to now: of two cores of one history with
 * equal fingerprints the same inputs make the same. Left out is randomness that is still to be drawn.
 *
 * Compare it within one build of the library.
 *
 * Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
 *
 * \param core The core.
 * \param fingerprint [out] The hash.
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
 */
raftz_status raftz_core_fingerprint(const struct raftz_core *core,
                                    uint64_t *fingerprint,
                                    struct raftz_error **error);

/**
 * \brief What stands in the log's place behind a snapshot of the state machine: to be kept with the snapshot, sent with it,
 * and given back with RAFTZ_INPUT_SNAPSHOT_KEPT. Bytes with a checksum.
 *
 * A snapshot that a program takes is named by the entry that it ends with, of which RAFTZ_ACTION_APPLY told index, term and
 * log time, by its length, and by a hash of the program's choice.
 *
 * Threads: one at a time (RAFTZ_BUSY). Inside callbacks: yes. Blocks: no.
 *
 * \param core The core.
 * \param index The last entry that the snapshot covers: one that is applied and still in the log.
 * \param log_time_us The log time of the last command up to there; 0 if that is not known.
 * \param term [out] The term of that entry, for the snapshot's name.
 * \param base [out] The bytes, to be freed with raftz_bytes_free().
 * \param error [out] Why not; may be NULL.
 * \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BUSY or RAFTZ_PANIC.
 */
raftz_status raftz_core_snapshot_base(const struct raftz_core *core,
                                      uint64_t index,
                                      uint64_t log_time_us,
                                      uint64_t *term,
                                      struct raftz_bytes **base,
                                      struct raftz_error **error);

/**
 * \brief Frees a core, and its last actions.
 *
 * Threads: any, once, and no other call beside or after it. Inside callbacks: yes. Blocks: no.
 *
 * \param core The core, or NULL, which is nothing.
 */
void raftz_core_free(struct raftz_core *core);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/** \brief Initializer: `raftz_propose_opts x = RAFTZ_PROPOSE_OPTS_INIT;` */
#define RAFTZ_PROPOSE_OPTS_INIT {sizeof(raftz_propose_opts), 0, 0, 0}
/** \brief Initializer: `raftz_read_opts x = RAFTZ_READ_OPTS_INIT;` */
#define RAFTZ_READ_OPTS_INIT {sizeof(raftz_read_opts), 0, 0, 0, 0}
/** \brief Initializer: `raftz_queue_opts x = RAFTZ_QUEUE_OPTS_INIT;` */
#define RAFTZ_QUEUE_OPTS_INIT {sizeof(raftz_queue_opts), 0, 0}
/** \brief Initializer: `raftz_start_opts x = RAFTZ_START_OPTS_INIT;` */
#define RAFTZ_START_OPTS_INIT {sizeof(raftz_start_opts), 0, 0, NULL}
/** \brief Initializer: `raftz_reply x = RAFTZ_REPLY_INIT;` */
#define RAFTZ_REPLY_INIT {sizeof(raftz_reply), 0, 0, 0, 0, NULL}
/** \brief Initializer: `raftz_event_info x = RAFTZ_EVENT_INFO_INIT;` */
#define RAFTZ_EVENT_INFO_INIT                                                                      \
    {sizeof(raftz_event_info), 0, 0, 0, 0, 0, 0, 0, 0, {NULL, 0}, NULL, NULL, 0, 0, 0, 0, 0, 0}
/** \brief Initializer: `raftz_state_info x = RAFTZ_STATE_INFO_INIT;` */
#define RAFTZ_STATE_INFO_INIT                                                                      \
    {sizeof(raftz_state_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                  \
     {NULL, 0}, {NULL, 0}, {NULL, 0}, 0}
/** \brief Initializer: `raftz_peer_info x = RAFTZ_PEER_INFO_INIT;` */
#define RAFTZ_PEER_INFO_INIT                                                                       \
    {sizeof(raftz_peer_info), 0, 0, 0, 0, 0, 0, {NULL, 0}, {NULL, 0}, NULL, 0, 0}
/** \brief Initializer: `raftz_metrics_info x = RAFTZ_METRICS_INFO_INIT;` */
#define RAFTZ_METRICS_INFO_INIT                                                                    \
    {sizeof(raftz_metrics_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,                            \
     {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}, 0, 0, 0, 0, 0, 0}
/** \brief Initializer: `raftz_peer_metrics_info x = RAFTZ_PEER_METRICS_INFO_INIT;` */
#define RAFTZ_PEER_METRICS_INFO_INIT                                                               \
    {sizeof(raftz_peer_metrics_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
/** \brief Initializer: `raftz_standing_info x = RAFTZ_STANDING_INFO_INIT;` */
#define RAFTZ_STANDING_INFO_INIT                                                                   \
    {sizeof(raftz_standing_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
/** \brief Initializer: `raftz_kv_reply_info x = RAFTZ_KV_REPLY_INFO_INIT;` */
#define RAFTZ_KV_REPLY_INFO_INIT {sizeof(raftz_kv_reply_info), 0, 0, 0, 0, {NULL, 0}}
/** \brief Initializer: `raftz_machine x = RAFTZ_MACHINE_INIT;` */
#define RAFTZ_MACHINE_INIT                                                                         \
    {sizeof(raftz_machine), RAFTZ_ABI_VERSION, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,   \
     NULL, NULL}
/** \brief Initializer: `raftz_storage x = RAFTZ_STORAGE_INIT;` */
#define RAFTZ_STORAGE_INIT                                                                         \
    {sizeof(raftz_storage), RAFTZ_ABI_VERSION, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,   \
     NULL, NULL}
/** \brief Initializer: `raftz_transport x = RAFTZ_TRANSPORT_INIT;` */
#define RAFTZ_TRANSPORT_INIT                                                                       \
    {sizeof(raftz_transport), RAFTZ_ABI_VERSION, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL}
/** \brief Initializer: `raftz_conformance_opts x = RAFTZ_CONFORMANCE_OPTS_INIT;` */
#define RAFTZ_CONFORMANCE_OPTS_INIT {sizeof(raftz_conformance_opts), 0, 0}
/** \brief Initializer: `raftz_core_opts x = RAFTZ_CORE_OPTS_INIT;` */
#define RAFTZ_CORE_OPTS_INIT                                                                       \
    {sizeof(raftz_core_opts), RAFTZ_ABI_VERSION, 0, {0}, {NULL, 0}, NULL, 0, NULL, 0}
/** \brief Initializer: `raftz_core_info x = RAFTZ_CORE_INFO_INIT;` */
#define RAFTZ_CORE_INFO_INIT                                                                       \
    {sizeof(raftz_core_info), 0, {0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
/** \brief Initializer: `raftz_core_input x = RAFTZ_CORE_INPUT_INIT;`, a RAFTZ_INPUT_TICK. */
#define RAFTZ_CORE_INPUT_INIT {RAFTZ_INPUT_TICK, 0, {{0}}}
/** \brief Initializer: `raftz_sim_opts x = RAFTZ_SIM_OPTS_INIT;` */
#define RAFTZ_SIM_OPTS_INIT                                                                        \
    {sizeof(raftz_sim_opts), 0, 0, {NULL, 0}, {NULL, 0}, NULL, NULL, NULL}
/** \brief Initializer: `raftz_sim_report_info x = RAFTZ_SIM_REPORT_INFO_INIT;` */
#define RAFTZ_SIM_REPORT_INFO_INIT                                                                 \
    {sizeof(raftz_sim_report_info), 0, 0, {NULL, 0}, {NULL, 0}, 0, 0, 0, {NULL, 0}, 0, 0, 0, 0,     \
     {NULL, 0}, 0, 0, 0, 0, 0}

/**
 * \brief A slice of text that ends with NUL, without the NUL.
 *
 * \param text The text; NULL is an empty slice.
 */
static inline raftz_slice raftz_text(const char *text) {
    raftz_slice slice;
    slice.data = (const uint8_t *)text;
    slice.len = 0;
    while (text != NULL && text[slice.len] != '\0') {
        slice.len++;
    }
    return slice;
}

#endif /* RAFTZ_H */
