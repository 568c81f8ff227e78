//! Transports written in C: a program carries raftz's messages over its own means, in place of TCP.
//!
//! A program's transport knows links and bytes. Who is at the other end of a link, which of two links counts, what is
//! late or garbled is decided here: `message` says what travels, `account` judges it, `shared` holds what waits, and
//! `carrier` puts all that behind the trait of the core.

mod account;
mod carrier;
mod message;
mod shared;

use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use raftz_core::transport::Transport;
use raftz_core::transport::handshake::Identity;
use raftz_core::types::NodeId;

use shared::{Context, Shared};

use crate::bytes::{raftz_bytes, raftz_slice, take_over};
use crate::error::raftz_error;
use crate::guard::{self, Call, Out, borrow, call, free, invalid, null, value};
use crate::machine::raftz_sink;
use crate::sized::{self, Sized};
use crate::status::raftz_status;

/// \brief How urgent a message is: elections, heartbeats, acknowledgements; first of all.
pub const RAFTZ_MESSAGE_CONTROL: u32 = 0;
/// \brief How urgent a message is: entries of the log.
pub const RAFTZ_MESSAGE_DATA: u32 = 1;
/// \brief How urgent a message is: pieces of snapshots, which should hold up nothing else.
pub const RAFTZ_MESSAGE_BULK: u32 = 2;

/// \brief A message to be sent. The layout of this struct is frozen.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_message {
    /// \brief RAFTZ_MESSAGE_…
    pub urgency: u32,
    /// \brief 0.
    pub reserved: u32,
    /// \brief All its bytes.
    pub len: usize,
    /// \brief Where they lie, one part behind the other.
    pub parts: *const raftz_slice,
    /// \brief How many parts; at least one.
    pub part_count: usize,
}

/// \brief What a program's transport tells a node with: of links, and of what arrives on them.
///
/// It is the program's own from an `open` that succeeds, to be freed with raftz_links_free() when none of its threads uses
/// it any more. Once the node has ended every call is RAFTZ_SHUT_DOWN. If `open` fails it is gone when that returns.
pub struct raftz_links(Arc<Shared>);

/// \brief A transport of the program's own: what carries messages between nodes, in place of TCP.
///
/// A transport knows links and messages. A link leads to one other node, in both directions, and the program sets it up
/// in any way: when it has reached a node, or somebody has come, it says so with raftz_links_up(). From then on raftz
/// sends messages on it, and the program gives those that arrive to raftz_links_deliver(), each whole and as it was sent.
/// The first ones are a handshake, in which nodes judge each other as over TCP: by cluster, epoch, data directory,
/// founders. A link that fails, is replaced by another one of the same two nodes, or on which nothing is heard or taken
/// for six seconds is ended by raftz, with words.
///
/// Messages may be lost; raftz sends again what is needed. What comes late, twice or on a wrong link is left out, and what
/// was changed on its way is found out, which ends the link. Those of one urgency should keep their order, since what is
/// overtaken counts as lost; one that is more urgent may overtake others, and bulk may take a way of its own.
///
/// What this does not give: nobody is prevented from reading along, and what a peer says of itself is not proven. Whoever
/// can reach the program's links can claim to be a node, as over plain TCP. Encryption, and the proof of who is at the
/// other end, are the program's business.
///
/// Set `size` to `sizeof(raftz_transport)` and `abi_version` to RAFTZ_ABI_VERSION; what is not needed is NULL. The struct
/// is copied by raftz_config_set_transport(); `user_data` must be there as long as the configuration and the nodes that
/// were started with it.
///
/// `open` is called alone. `dial`, `send` and `end` are called on one thread of the node's own that does nothing else, one
/// at a time. While one of them blocks nothing is sent to anybody: `dial` should leave what takes time to another thread,
/// and `send` take less. `stop` may be called beside them. `destroy` is called alone, and last. Functions must return: no
/// longjmp, no C++ exception, no end of the thread. Blocking calls of raftz are refused in them.
///
/// The addresses of the nodes are the program's to read: of the form `host:port`, with a port from 1 to 65535 and as host
/// anything without a colon, blank, comma or equals sign, such as a path. An IP address beyond this machine needs
/// `insecure_plaintext` here, too. `listen_address` is not used.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_transport {
    /// \brief `sizeof(raftz_transport)`.
    pub size: usize,
    /// \brief RAFTZ_ABI_VERSION.
    pub abi_version: u32,
    /// \brief 0.
    pub flags: u32,
    /// \brief Given to `open`.
    pub user_data: *mut c_void,
    /// \brief Opens the transport for one node. Required.
    ///
    /// `links` is what raftz_links_up() and its sisters are called with, from now on. A status other than RAFTZ_OK, with
    /// words by raftz_sink_fail() on `why`, makes raftz_node_start() fail; nothing else is called then.
    pub open: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            links: *mut raftz_links,
            why: *mut raftz_sink,
            transport: *mut *mut c_void,
        ) -> raftz_status,
    >,
    /// \brief Ends a transport. Called exactly once for every `open` that succeeded, after the last call of any other
    /// function. Optional.
    pub destroy: Option<unsafe extern "C" fn(transport: *mut c_void)>,
    /// \brief Tries to reach a node, once: the program answers with raftz_links_up() or raftz_links_unreachable(), now or
    /// later. `address`, in UTF-8 and not ended by NUL, lives until it returns.
    ///
    /// It is called for the members of the cluster as long as there is no link to them: again after an answer that it
    /// failed, with pauses that grow, and after three seconds without an answer. If two nodes dial each other at once,
    /// raftz keeps one of the links. Optional, for transports that dial by themselves.
    pub dial:
        Option<unsafe extern "C" fn(transport: *mut c_void, peer_id: u64, address: raftz_slice)>,
    /// \brief Sends messages on a link, in their order. Required.
    ///
    /// `taken` says how many of them, from the front, were taken; it is `count` unless the program writes another number.
    /// The rest is given again after raftz_links_ready(). Messages that were taken have been sent or copied: they, and what
    /// they point to, live until it returns. What waits to be taken is bounded by `link_queue_bytes_max` for each link;
    /// beyond it raftz sends later what is still needed then.
    ///
    /// A status other than RAFTZ_OK, with words by raftz_sink_fail() on `why`, ends the link.
    pub send: Option<
        unsafe extern "C" fn(
            transport: *mut c_void,
            link_context: *mut c_void,
            messages: *const raftz_message,
            count: usize,
            taken: *mut usize,
            why: *mut raftz_sink,
        ) -> raftz_status,
    >,
    /// \brief Ends a link: it is of no more use, and what `reason` says in UTF-8 is why. Called exactly once for every
    /// raftz_links_up() that succeeded, also if the program said raftz_links_down(); nothing is called with its context
    /// afterwards. What was taken should still be sent: a refused node is told why. Required.
    pub end: Option<
        unsafe extern "C" fn(
            transport: *mut c_void,
            link_context: *mut c_void,
            reason: raftz_slice,
        ),
    >,
    /// \brief The node stops: a function that blocks is to return, and none is to block from now on. Called once, beside
    /// the others, before all links are ended. A transport that blocks for longer holds up raftz_node_stop(), which says
    /// RAFTZ_STILL_RUNNING then. Optional.
    pub stop: Option<unsafe extern "C" fn(transport: *mut c_void)>,
}

// SAFETY: integers, a pointer and optional functions.
unsafe impl Sized for raftz_transport {
    const NAME: &'static str = "raftz_transport";
}

/// A table that was found good.
#[derive(Clone, Copy)]
pub(crate) struct Table(raftz_transport);

// SAFETY: the contract of raftz_transport: `open` may be called from any thread.
unsafe impl Send for Table {}
// SAFETY: as above; the table is never changed.
unsafe impl Sync for Table {}

impl Table {
    /// Checks a table.
    ///
    /// # Safety
    /// As [`sized::read`].
    pub(crate) unsafe fn read(pointer: *const raftz_transport) -> Call<Self> {
        // SAFETY: the caller's contract.
        let table = unsafe { sized::read(pointer) }?.ok_or_else(|| null("transport"))?;
        sized::known::<raftz_transport>(table.abi_version, table.flags, 0)?;
        sized::required::<raftz_transport>(&[
            ("open", table.open.is_some()),
            ("send", table.send.is_some()),
            ("end", table.end.is_some()),
        ])?;
        Ok(Self(table))
    }

    /// Opens it for a node that says this of itself.
    pub(crate) fn connect(
        self,
        hello: Identity,
        queue_bytes_max: u64,
    ) -> Result<Box<dyn Transport>, String> {
        carrier::connect(self.0, hello, queue_bytes_max)
    }
}

impl raftz_links {
    /// Gives links to C.
    fn give(shared: Arc<Shared>) -> *mut Self {
        Box::into_raw(Box::new(Self(shared)))
    }

    /// Takes them back.
    ///
    /// # Safety
    /// As [`guard::take_back`].
    unsafe fn take(links: *mut Self) -> Option<Box<Self>> {
        // SAFETY: the caller's contract.
        unsafe { guard::take_back(links) }
    }
}

/// The links behind a pointer from C, unless this is a child of their process.
///
/// # Safety
/// NULL, or links that are C's own.
unsafe fn links<'a>(pointer: *const raftz_links) -> Call<&'a Shared> {
    // SAFETY: the caller's contract.
    let links = unsafe { borrow(pointer, "links") }?;
    links.0.mark.check()?;
    Ok(&links.0)
}

/// \brief Says that a link stands. The handshake begins at once, if the node was dialled.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param links What `open` was given.
/// \param peer_id The node that was dialled; 0 if somebody has come.
/// \param context The program's end of the link, given to `send` and `end`; anything. If the call fails it is not.
/// \param link [out] The link's number. `send` may be called before this call returns.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_BUSY if there are 1024 links, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_up(
    links: *mut raftz_links,
    peer_id: u64,
    context: *mut c_void,
    link: *mut u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        let out = Out::new(link, "link")?;
        // SAFETY: the caller's contract.
        let links = unsafe { self::links(links.cast_const()) }?;
        let number = links.up(NodeId::new(peer_id), Context(context))?;
        // SAFETY: the caller's contract.
        unsafe { out.put(number) };
        Ok(())
    })
}

/// \brief Gives a message that arrived: whole, and as it was sent. It is looked through on this thread.
///
/// What may wait of one link is bounded: 4 MiB or one message, and 64 KiB before the end of its handshake. Messages of one
/// link that are given by several threads at once have no order.
///
/// Threads: any. Inside callbacks: yes; to wait there is RAFTZ_IN_CALLBACK. Blocks: up to the timeout, while too much
/// waits already.
///
/// \param links What `open` was given.
/// \param link The link.
/// \param message The message; copied.
/// \param timeout_ms How long to wait for room, in milliseconds; 0 to try.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK; RAFTZ_BUSY if too much waits, which changes nothing; RAFTZ_INVALID_ARG for what is no message, too
///         large or garbled, and the link is ended then, or for a link that there never was; RAFTZ_CLOSED for one that has
///         ended; RAFTZ_NULL_ARG, RAFTZ_IN_CALLBACK, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_deliver(
    links: *mut raftz_links,
    link: u64,
    message: raftz_slice,
    timeout_ms: u32,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (links, message) =
            unsafe { (self::links(links.cast_const())?, guard::bytes(message, "message")?) };
        // More than there can be is not even copied.
        let most = message.len().min(links.bytes_max().saturating_add(1));
        let copy = || Bytes::copy_from_slice(&message[..most]);
        links.deliver(link, most, copy, Duration::from_millis(timeout_ms.into()))
    })
}

/// \brief As raftz_links_deliver(), without a copy: the message is handed over.
///
/// Threads: any. Inside callbacks: yes; to wait there is RAFTZ_IN_CALLBACK. Blocks: up to the timeout, while too much
/// waits already.
///
/// \param links What `open` was given.
/// \param link The link.
/// \param message The message; it is the library's from now on, whatever becomes of the call. Entries in it may stay in
///        memory for long.
/// \param timeout_ms How long to wait for room, in milliseconds; 0 to try.
/// \param error [out] Why not; may be NULL.
/// \return As raftz_links_deliver().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_deliver_bytes(
    links: *mut raftz_links,
    link: u64,
    message: *mut raftz_bytes,
    timeout_ms: u32,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (message, links) =
            unsafe { (take_over(message, "message")?, self::links(links.cast_const())?) };
        let patience = Duration::from_millis(timeout_ms.into());
        links.deliver(link, message.len(), || message, patience)
    })
}

/// \brief Says that a link takes messages again, after `send` took fewer than it was given.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param links What `open` was given.
/// \param link The link.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, also if nothing waits; RAFTZ_INVALID_ARG for a link that there never was, RAFTZ_CLOSED for one that
///         has ended, RAFTZ_NULL_ARG, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_ready(
    links: *mut raftz_links,
    link: u64,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        unsafe { self::links(links.cast_const()) }?.ready(link)
    })
}

/// \brief Says that a link is gone. What was delivered before still counts; `end` follows.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param links What `open` was given.
/// \param link The link.
/// \param words Why, in UTF-8; copied, and cut to 512 bytes. Empty for none.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK; RAFTZ_INVALID_ARG for a link that there never was, RAFTZ_CLOSED for one that has ended already,
///         RAFTZ_NULL_ARG, RAFTZ_SHUT_DOWN or RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_down(
    links: *mut raftz_links,
    link: u64,
    words: raftz_slice,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (links, words) =
            unsafe { (self::links(links.cast_const())?, guard::bytes(words, "words")?) };
        links.down(link, &String::from_utf8_lossy(words))
    })
}

/// \brief Says that a node cannot be reached. The node tells of it, and whoever waits in vain is told why.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param links What `open` was given.
/// \param peer_id The node.
/// \param words Why, in UTF-8; copied, and cut to 512 bytes. Empty for none.
/// \param error [out] Why not; may be NULL.
/// \return RAFTZ_OK, RAFTZ_NULL_ARG, RAFTZ_INVALID_ARG, RAFTZ_BUSY if too many others wait to be told, RAFTZ_SHUT_DOWN or
///         RAFTZ_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_unreachable(
    links: *mut raftz_links,
    peer_id: u64,
    words: raftz_slice,
    error: *mut *mut raftz_error,
) -> raftz_status {
    call(error, || {
        // SAFETY: the caller's contract.
        let (links, words) =
            unsafe { (self::links(links.cast_const())?, guard::bytes(words, "words")?) };
        let peer = NodeId::new(peer_id).ok_or_else(|| invalid("peer_id is 0; ids start at 1"))?;
        links.unreachable(peer, &String::from_utf8_lossy(words))
    })
}

/// \brief How large the largest message is that can be sent or arrive. What claims to be larger is no message.
///
/// Threads: any. Inside callbacks: yes. Blocks: no.
///
/// \param links What `open` was given; for NULL the answer is 0.
/// \return The number of bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_bytes_max(links: *const raftz_links) -> usize {
    // SAFETY: the caller's contract.
    value(0, || Ok(unsafe { self::links(links) }?.bytes_max()))
}

/// \brief Frees links. The node does not notice; links that are up stay, and nothing more is told of them.
///
/// Threads: any, once, and no other call beside or after it. Inside callbacks: yes. Blocks: no.
///
/// \param links What `open` was given, or NULL, which is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raftz_links_free(links: *mut raftz_links) {
    // SAFETY: the caller's contract: NULL, or links that are C's own.
    unsafe { free(links) }
}
