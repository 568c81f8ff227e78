//! How a core begins: as a founder of its cluster, or with what its disk held.

use raftz_core::node::{Config, ConfigError};
use raftz_core::raft;
use raftz_core::types::{Boot, DiskId, Entry, GroupId, Index, Recovered};

use super::input::{self, raftz_snapshot};
use crate::bytes::raftz_slice;
use crate::error::Failure;
use crate::guard::{self, Call, invalid};
use crate::sized::Sized;
use crate::status::{RAFTZ_ABI_MISMATCH, RAFTZ_STORAGE};
use crate::storage::kept::{self, Kept, Log};
use crate::storage::store::{Founding, look_through};
use crate::version::RAFTZ_ABI_VERSION;

/// \brief In raftz_core_opts' flags: the state machine persists itself, and has in its own storage what `machine_applied`
/// says. Nothing is handed to it before it is on this node's own disk.
pub const RAFTZ_CORE_MACHINE_PERSISTS: u32 = 1;
/// \brief In raftz_core_opts' flags: the disk is empty, and the core is a founder of a cluster that is new. Said once in the
/// life of a cluster: a core that loses its disk must not come back as if it had never voted.
pub const RAFTZ_CORE_FOUNDS: u32 = 2;
const FLAGS: u32 = RAFTZ_CORE_MACHINE_PERSISTS | RAFTZ_CORE_FOUNDS;

/// \brief What a core begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct raftz_core_opts {
    /// \brief Set it to `sizeof(raftz_core_opts)`.
    pub size: usize,
    /// \brief RAFTZ_ABI_VERSION: the core gives no action that is newer.
    pub abi_version: u32,
    /// \brief RAFTZ_CORE_…, or 0.
    pub flags: u32,
    /// \brief Names the disk of a new core, for ever; all zero: drawn at random. What was kept knows its own.
    pub disk_id: [u8; 16],
    /// \brief What the disk holds: the record of the last write. Empty with RAFTZ_CORE_FOUNDS, and only then.
    pub record: raftz_slice,
    /// \brief What the disk holds: all entries, in order, each as it was given to be written. They are looked through
    /// during the call and not kept, so that a mapped file will do.
    pub entries: *const raftz_slice,
    /// \brief How many.
    pub entry_count: usize,
    /// \brief The newest snapshot on the disk, from which the machine was restored; NULL for none.
    pub snapshot: *const raftz_snapshot,
    /// \brief With RAFTZ_CORE_MACHINE_PERSISTS: the last index that the machine has in its own storage.
    pub machine_applied: u64,
}

// SAFETY: integers and pointers alone.
unsafe impl Sized for raftz_core_opts {
    const NAME: &'static str = "raftz_core_opts";
}

/// A core's beginning.
pub(super) struct Start {
    pub(super) config: raft::Config,
    pub(super) recovered: Recovered,
    /// What the disk is to hold.
    pub(super) log: Log,
}

impl Start {
    /// Checks everything and looks through what was kept.
    ///
    /// # Safety
    /// What the options point to is there.
    pub(super) unsafe fn new(config: &Config, opts: &raftz_core_opts) -> Call<Self> {
        if opts.abi_version == 0 || opts.abi_version > RAFTZ_ABI_VERSION {
            let words = format!(
                "raftz_core_opts.abi_version is {}; set it to RAFTZ_ABI_VERSION, which this library knows up to {RAFTZ_ABI_VERSION}",
                opts.abi_version
            );
            return Err(Failure::new(RAFTZ_ABI_MISMATCH, words));
        }
        if opts.flags & !FLAGS != 0 {
            return Err(invalid(format!("raftz_core_opts.flags is {:#x}", opts.flags)));
        }
        // SAFETY: the caller's contract.
        let (record, entries, snapshot) = unsafe {
            (
                guard::bytes(opts.record, "opts.record")?,
                entries(opts)?,
                opts.snapshot.as_ref().map(|it| input::snapshot(*it)).transpose()?,
            )
        };
        let founds = opts.flags & RAFTZ_CORE_FOUNDS != 0;
        config.validate_core(founds)?;
        let disk = DiskId(u128::from_be_bytes(opts.disk_id));
        let is_empty = record.is_empty() && entries.is_empty() && snapshot.is_none();
        if founds && !is_empty {
            return Err(unusable(&"something, and RAFTZ_CORE_FOUNDS begins with an empty one"));
        }
        if record.is_empty() && !founds {
            let words =
                "no record; a founder says RAFTZ_CORE_FOUNDS, once in the life of a cluster";
            return Err(unusable(&words));
        }
        let kept = if founds { founding(config, disk)? } else { remembered(record, disk)? };
        let (log, recovered) = looked_through(kept, &entries)?;
        config.check_identity(&recovered)?;
        // What the cluster was founded with counts.
        let entry_bytes_max = recovered.base.settings.entry_bytes_max;
        Config { entry_bytes_max, ..config.clone() }.validate_core(false)?;
        let persists = opts.flags & RAFTZ_CORE_MACHINE_PERSISTS != 0;
        if !persists && opts.machine_applied > 0 {
            return Err(invalid("opts.machine_applied goes with RAFTZ_CORE_MACHINE_PERSISTS"));
        }
        let machine_applied = persists.then_some(Index(opts.machine_applied));
        let restored = snapshot.as_ref().map_or(Index::ZERO, |kept| kept.id.last.index);
        let end = recovered.last.index.max(restored);
        if machine_applied.is_some_and(|own| own > end) && recovered.damage.is_none() {
            return Err(invalid(format!(
                "opts.machine_applied is {}, and the log ends at {end}: they do not belong together",
                opts.machine_applied
            )));
        }
        let disk = recovered.identity.disk;
        let config = raft::Config { machine_applied, snapshot, ..config.core(disk) };
        Ok(Self { config, recovered, log })
    }
}

/// What was kept is of no use.
fn unusable(why: &impl std::fmt::Display) -> Failure {
    Failure::new(RAFTZ_STORAGE, format!("what the disk held: {why}"))
}

fn founding(config: &Config, disk: DiskId) -> Call<Kept> {
    let Founding { mut identity, base } = Founding::of(config).map_err(|error| unusable(&error))?;
    if disk != DiskId(0) {
        identity.disk = disk;
    }
    Ok(Kept::founding(identity, base))
}

fn remembered(record: &[u8], disk: DiskId) -> Call<Kept> {
    let kept = Kept::decode(record).map_err(|words| unusable(&words))?;
    let known = kept.identity.disk;
    if disk != DiskId(0) && disk != known {
        let words = format!("opts.disk_id is {disk}, and the record is of disk {known}");
        return Err(ConfigError::Contradiction(words).into());
    }
    Ok(kept)
}

/// # Safety
/// All entries are there.
unsafe fn entries<'a>(opts: &raftz_core_opts) -> Call<Vec<&'a [u8]>> {
    // SAFETY: the caller's contract.
    let slices = unsafe { guard::array(opts.entries, opts.entry_count, "opts.entries") }?;
    let bytes = |(at, slice): (usize, &raftz_slice)| {
        // SAFETY: the caller's contract.
        unsafe { guard::bytes(*slice, &format!("opts.entries[{at}]")) }
    };
    slices.iter().enumerate().map(bytes).collect()
}

/// The next life of what was kept.
fn looked_through(mut kept: Kept, entries: &[&[u8]]) -> Call<(Log, Recovered)> {
    kept.boot = Boot(kept.boot.0.saturating_add(1));
    let (base, wanted) = (kept.base.id.index, kept.last.index);
    let count = entries.len();
    if count as u64 > base.distance_to(wanted) && kept.lost.is_none() {
        let known = format!("entries {} to {wanted}", base.next());
        return Err(unusable(&format!("{count} entries, and the record knows of {known}")));
    }
    let read = |next: Index, _| {
        let at = base.next().distance_to(next);
        let given = usize::try_from(at).ok().and_then(|at| entries.get(at));
        let entry = given.map_or_else(|| Err("it is not there".into()), |it| decoded(it, next));
        Ok(match entry {
            Ok(entry) => (vec![entry], None),
            Err(words) => (Vec::new(), Some(format!("in place of entry {next}: {words}"))),
        })
    };
    look_through(kept, read).map_err(|error| unusable(&error))
}

fn decoded(bytes: &[u8], wanted: Index) -> Result<Entry, String> {
    let entry = kept::decode_entry(bytes, GroupId::FIRST)?;
    if entry.index != wanted {
        return Err(format!("entry {}", entry.index));
    }
    Ok(entry)
}
