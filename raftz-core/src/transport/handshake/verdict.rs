//! The verdict: who may hold a link. A pure function of what each side says and knows; the order
//! of its questions is part of it, because a stranger learns no more than the first refusal.
//!
//! Until links are authenticated, admission rests on knowing what is asked here. So the words that
//! a refused node is sent name only what it said itself; what this side knows goes into its own
//! log. The one exception is the known directory of [`Reject::WRONG_DISK`], which ends a wiped
//! node: it is told to nobody who has not named the cluster, the epoch and both ids.

use super::{Identity, Reject, Role};
use crate::transport::PeerIdentity;
use crate::types::{Boot, DiskId, NodeId};

/// A judged peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who it is.
    pub peer: PeerIdentity,
    /// Tells its process from another with the same identity.
    pub instance: u64,
    /// The frame version to speak.
    pub version: u16,
    /// Its optional abilities.
    pub features: u64,
    /// Largest frame that it accepts.
    pub frame_bytes_max: usize,
    /// Where it says that it listens.
    pub address: String,
}

/// What the judging side knows beside its own identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Who was dialled, if this side dialled.
    pub expected: Option<NodeId>,
    /// The only data directory that the other may come with.
    pub disk: Option<DiskId>,
    /// The life and process of it that is connected already: its directory, boot and instance.
    pub connected: Option<(DiskId, Boot, u64)>,
}

/// A refusal and its two sets of words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words} (code {})", .told.code)]
pub struct Refused {
    /// What the other side is sent.
    pub told: Reject,
    /// The whole reason, for this side's events and log.
    pub words: String,
}

impl Refused {
    /// A refusal whose words hold nothing that the other side does not know.
    pub(crate) fn alike(code: u16, words: impl Into<String>) -> Self {
        let words = words.into();
        Self { told: Reject { code, words: words.clone(), known_disk: None }, words }
    }

    fn new(code: u16, told: impl Into<String>, words: String) -> Self {
        Self { told: Reject { code, words: told.into(), known_disk: None }, words }
    }
}

/// The verdict of `local` on what `remote` says of itself.
pub fn judge(local: &Identity, remote: &Identity, known: &Known) -> Result<Accepted, Refused> {
    // The cluster comes first: nodes of another cluster learn nothing else.
    if remote.cluster != local.cluster {
        let (theirs, ours) = (remote.cluster, local.cluster);
        return Err(Refused::new(
            Reject::WRONG_CLUSTER,
            format!(
                "cluster {theirs} is not this node's cluster; check the addresses and the cluster id"
            ),
            format!(
                "cluster {theirs} is not this node's cluster {ours}; check the addresses and the \
                 cluster id"
            ),
        ));
    }
    if remote.epoch != local.epoch {
        let (theirs, ours) = (remote.epoch, local.epoch);
        let advice = "one of the two missed a rebuild of the cluster and must join anew";
        return Err(Refused::new(
            Reject::WRONG_EPOCH,
            format!("epoch {theirs} is not this node's epoch; {advice}"),
            format!("epoch {theirs} is not this node's epoch {ours}; {advice}"),
        ));
    }
    let version = remote.version_max.min(local.version_max);
    if version < remote.version_min || version < local.version_min {
        // What a release of the program speaks is no secret, and whoever upgrades needs both.
        return Err(Refused::alike(
            Reject::NO_COMMON_VERSION,
            format!(
                "frame versions {} to {} and this node's {} to {} have none in common; upgrade \
                 the older node",
                remote.version_min, remote.version_max, local.version_min, local.version_max
            ),
        ));
    }
    if !matches!(remote.role, Role::Peer | Role::Bulk) {
        let words = format!("this node serves no {:?} connections", remote.role);
        return Err(Refused::alike(Reject::ROLE_NOT_SERVED, words));
    }
    let Some(node) = remote.from else {
        return Err(Refused::alike(Reject::MALFORMED, "a peer must say its node id"));
    };
    if Some(node) == local.from {
        return Err(own_id(local, remote, node));
    }
    judge_meant(local, remote, node, known.expected)?;
    if let Some(disk) = known.disk
        && disk != remote.disk
    {
        let words = format!(
            "node {node} is a member with data directory {disk} but comes with {}; if its disk \
             was lost, remove it and let it join under a new id",
            remote.disk
        );
        let mut refused = Refused::alike(Reject::WRONG_DISK, words);
        refused.told.known_disk = Some(disk);
        return Err(refused);
    }
    if remote.founders_hash != 0
        && local.founders_hash != 0
        && remote.founders_hash != local.founders_hash
    {
        let (theirs, ours) = (remote.founders_hash, local.founders_hash);
        let differ =
            format!("node {node} was bootstrapped with another list of founders or settings");
        let advice = "bootstrap all founders with the same";
        return Err(Refused::new(
            Reject::FOUNDERS_DIFFER,
            format!("{differ} ({theirs:016x}) than this one; {advice}"),
            format!("{differ} ({theirs:016x}, here {ours:016x}); {advice}"),
        ));
    }
    judge_lives(node, remote, known)?;
    if remote.role == Role::Bulk
        && known.connected != Some((remote.disk, remote.boot, remote.instance))
    {
        let words = format!("node {node} has no link here beside which it could send in bulk");
        return Err(Refused::alike(Reject::NO_LINK, words));
    }
    Ok(Accepted {
        peer: PeerIdentity { node, disk: remote.disk, boot: remote.boot },
        instance: remote.instance,
        version,
        features: remote.features,
        frame_bytes_max: remote.frame_bytes_max as usize,
        address: remote.address.clone(),
    })
}

/// Each side must have meant the other.
fn judge_meant(
    local: &Identity,
    remote: &Identity,
    node: NodeId,
    expected: Option<NodeId>,
) -> Result<(), Refused> {
    if let Some(expected) = expected
        && expected != node
    {
        return Err(Refused::new(
            Reject::NOT_ME,
            format!("node {node} answered where another was expected; check the addresses"),
            format!("node {node} answered where node {expected} was expected; check the addresses"),
        ));
    }
    if remote.to != local.from {
        let named =
            |id: Option<NodeId>| id.map_or_else(|| "nobody".into(), |id| format!("node {id}"));
        let (meant, here) = (named(remote.to), named(local.from));
        return Err(Refused::new(
            Reject::NOT_ME,
            format!("{meant} was meant, but another listens here; check the addresses"),
            format!("{meant} was meant, but {here} listens here; check the addresses"),
        ));
    }
    Ok(())
}

fn own_id(local: &Identity, remote: &Identity, node: NodeId) -> Refused {
    if remote.instance == local.instance {
        let words = format!("node {node} reached itself; a peer's address is its own");
        Refused::alike(Reject::SELF_CONNECTION, words)
    } else {
        let words = format!(
            "node {node} is running already, as another process; give each node its own id"
        );
        Refused::alike(Reject::ID_IN_USE, words)
    }
}

/// One life of a node at a time: a later boot replaces an earlier one, and nothing else does.
fn judge_lives(node: NodeId, remote: &Identity, known: &Known) -> Result<(), Refused> {
    let Some((disk, boot, instance)) = known.connected else { return Ok(()) };
    if disk != remote.disk {
        let (already, advice) =
            (format!("node {node} is connected already"), "stop one of the two");
        let theirs = remote.disk;
        return Err(Refused::new(
            Reject::ID_IN_USE,
            format!("{already}, from another data directory than {theirs}; {advice}"),
            format!("{already}, from data directory {disk}, not {theirs}; {advice}"),
        ));
    }
    if boot == remote.boot && instance != remote.instance {
        let words = format!(
            "node {node} is connected already, as another process on a copy of its data \
             directory; stop one of the two"
        );
        return Err(Refused::alike(Reject::ID_IN_USE, words));
    }
    if boot > remote.boot {
        let theirs = remote.boot.0;
        let advice = "its data directory seems to be an old copy";
        return Err(Refused::new(
            Reject::STALE_BOOT,
            format!("node {node} is connected already in a later life than {theirs}; {advice}"),
            format!(
                "node {node} is connected already in its life {}, after {theirs}; {advice}",
                boot.0
            ),
        ));
    }
    Ok(())
}

/// Which of two links of one life of a peer to keep, the same on both sides: the one that the node
/// with the lower id dialled; of two by the same side, or when the other has stood so long that
/// the peer must have lost it to dial again, the new one.
pub const fn keeps_new(
    node: NodeId,
    peer: NodeId,
    new_dialled_here: bool,
    old_dialled_here: bool,
    old_is_settled: bool,
) -> bool {
    if new_dialled_here == old_dialled_here || old_is_settled {
        return true;
    }
    new_dialled_here == (node.get() < peer.get())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::types::ClusterId;

    fn id(raw: u64) -> NodeId {
        NodeId::new(raw).unwrap()
    }

    fn here() -> Identity {
        let mut identity = Identity::peer(ClusterId(1), 1, id(1), DiskId(101), Boot(1), 7);
        identity.instance = 1;
        identity
    }

    fn there() -> Identity {
        let mut identity = Identity::peer(ClusterId(1), 1, id(2), DiskId(102), Boot(5), 7);
        identity.instance = 2;
        identity.addressed_to(Some(id(1)))
    }

    fn code(remote: &Identity, known: &Known) -> Option<u16> {
        judge(&here(), remote, known).err().map(|refused| refused.told.code)
    }

    #[test]
    fn each_difference_has_its_own_code() {
        let nobody = Known::default();
        let with = |change: fn(&mut Identity)| {
            let mut remote = there();
            change(&mut remote);
            remote
        };
        let table: [(Identity, Option<u16>); 12] = [
            (there(), None),
            (with(|it| it.cluster = ClusterId(2)), Some(Reject::WRONG_CLUSTER)),
            (with(|it| it.epoch = 2), Some(Reject::WRONG_EPOCH)),
            (with(|it| it.version_min = 2), Some(Reject::NO_COMMON_VERSION)),
            (with(|it| it.version_max = 0), Some(Reject::NO_COMMON_VERSION)),
            (with(|it| it.version_max = 9), None),
            (with(|it| it.role = Role::Client), Some(Reject::ROLE_NOT_SERVED)),
            (with(|it| it.from = None), Some(Reject::MALFORMED)),
            (with(|it| it.to = NodeId::new(3)), Some(Reject::NOT_ME)),
            (with(|it| it.to = None), Some(Reject::NOT_ME)),
            (with(|it| it.founders_hash = 8), Some(Reject::FOUNDERS_DIFFER)),
            (with(|it| it.founders_hash = 0), None),
        ];
        for (remote, expected) in table {
            assert_eq!(code(&remote, &nobody), expected, "{remote:?}");
        }
        assert_eq!(code(&here(), &nobody), Some(Reject::SELF_CONNECTION));
        let twin = Identity { instance: 9, ..here() };
        assert_eq!(code(&twin, &nobody), Some(Reject::ID_IN_USE));
    }

    #[test]
    fn what_is_known_of_a_peer_decides() {
        let expecting = Known { expected: Some(id(3)), ..Known::default() };
        assert_eq!(code(&there(), &expecting), Some(Reject::NOT_ME));
        let other_disk = Known { disk: Some(DiskId(9)), ..Known::default() };
        let Refused { told, words } = judge(&here(), &there(), &other_disk).unwrap_err();
        assert_eq!((told.code, told.known_disk), (Reject::WRONG_DISK, Some(DiskId(9))));
        for named in ["node 2", &DiskId(9).to_string(), &DiskId(102).to_string()] {
            assert!(words.contains(named) && told.words.contains(named), "{words}");
        }
        let same_disk = Known { disk: Some(DiskId(102)), ..Known::default() };
        assert_eq!(code(&there(), &same_disk), None);
    }

    #[test]
    fn one_life_at_a_time_and_only_a_later_one_replaces_it() {
        let connected = |disk: u128, boot: u64, instance: u64| Known {
            connected: Some((DiskId(disk), Boot(boot), instance)),
            ..Known::default()
        };
        assert_eq!(code(&there(), &connected(102, 5, 2)), None, "a second link of one life");
        assert_eq!(code(&there(), &connected(102, 4, 8)), None, "a restart");
        assert_eq!(code(&there(), &connected(102, 5, 8)), Some(Reject::ID_IN_USE), "a copy");
        assert_eq!(code(&there(), &connected(103, 5, 8)), Some(Reject::ID_IN_USE), "another disk");
        assert_eq!(code(&there(), &connected(102, 6, 8)), Some(Reject::STALE_BOOT));
    }

    #[test]
    fn both_sides_keep_the_same_one_of_two_simultaneous_links() {
        let (low, high) = (id(1), id(2));
        // The low node's link is the new one on either side, or the old one on either side.
        assert!(keeps_new(low, high, true, false, false));
        assert!(keeps_new(high, low, false, true, false));
        assert!(!keeps_new(low, high, false, true, false));
        assert!(!keeps_new(high, low, true, false, false));
    }

    #[test]
    fn a_bulk_connection_needs_a_link_of_the_same_life_and_every_other_condition() {
        let bulk = || Identity { role: Role::Bulk, ..there() };
        let linked = |boot: u64, instance: u64| Known {
            connected: Some((DiskId(102), Boot(boot), instance)),
            ..Known::default()
        };
        assert_eq!(code(&bulk(), &linked(5, 2)), None);
        assert_eq!(code(&bulk(), &Known::default()), Some(Reject::NO_LINK));
        assert_eq!(code(&bulk(), &linked(4, 2)), Some(Reject::NO_LINK), "of an earlier life");
        assert_eq!(code(&bulk(), &linked(6, 2)), Some(Reject::STALE_BOOT));
        assert_eq!(code(&bulk(), &linked(5, 8)), Some(Reject::ID_IN_USE));
        let other_disk = Known { disk: Some(DiskId(9)), ..linked(5, 2) };
        assert_eq!(code(&bulk(), &other_disk), Some(Reject::WRONG_DISK));
        let stranger = Identity { cluster: ClusterId(2), ..bulk() };
        assert_eq!(code(&stranger, &linked(5, 2)), Some(Reject::WRONG_CLUSTER));
    }

    #[test]
    fn a_refused_node_is_told_only_what_it_said_itself_and_the_log_is_told_all() {
        let mut local = here();
        local.cluster = ClusterId(0xc0ffee);
        local.epoch = 31_337;
        local.from = NodeId::new(4242);
        local.founders_hash = 0xf00d;
        let guess = Identity {
            cluster: local.cluster,
            epoch: local.epoch,
            to: local.from,
            founders_hash: local.founders_hash,
            ..there()
        };
        let elsewhere = Known { connected: Some((DiskId(0xd15c), Boot(1), 8)), ..Known::default() };
        let later = Known { connected: Some((DiskId(102), Boot(777), 8)), ..Known::default() };
        let expecting = Known { expected: Some(id(9898)), ..Known::default() };
        let nobody = Known::default();
        let table: [(Identity, &Known, String); 7] = [
            (
                Identity { cluster: ClusterId(2), ..guess.clone() },
                &nobody,
                local.cluster.to_string(),
            ),
            (Identity { epoch: 3, ..guess.clone() }, &nobody, "31337".into()),
            (Identity { to: Some(id(3)), ..guess.clone() }, &nobody, "4242".into()),
            (Identity { founders_hash: 1, ..guess.clone() }, &nobody, "f00d".into()),
            (guess.clone(), &expecting, "9898".into()),
            (guess.clone(), &elsewhere, DiskId(0xd15c).to_string()),
            (guess.clone(), &later, "777".into()),
        ];
        for (remote, known, secret) in table {
            let refused = judge(&local, &remote, known).unwrap_err();
            assert!(!refused.told.words.contains(&secret), "told: {}", refused.told);
            assert!(refused.words.contains(&secret), "kept from the log: {refused}");
        }
        assert!(judge(&local, &guess, &nobody).is_ok());
    }
}
