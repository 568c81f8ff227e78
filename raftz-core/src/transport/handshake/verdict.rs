//! The verdict: who may hold a link. A pure function of what each side says and knows; the order
//! of its questions is part of it, because a stranger learns no more than the first refusal.

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

/// The verdict of `local` on what `remote` says of itself.
pub fn judge(local: &Identity, remote: &Identity, known: &Known) -> Result<Accepted, Reject> {
    // The cluster comes first: nodes of another cluster learn nothing else.
    if remote.cluster != local.cluster {
        return Err(Reject::new(
            Reject::WRONG_CLUSTER,
            format!(
                "cluster {} is not this node's cluster {}; check the addresses and the cluster id",
                remote.cluster, local.cluster
            ),
        ));
    }
    if remote.epoch != local.epoch {
        return Err(Reject::new(
            Reject::WRONG_EPOCH,
            format!(
                "epoch {} is not this node's epoch {}; one of the two missed a rebuild of the \
                 cluster and must join anew",
                remote.epoch, local.epoch
            ),
        ));
    }
    let version = remote.version_max.min(local.version_max);
    if version < remote.version_min || version < local.version_min {
        return Err(Reject::new(
            Reject::NO_COMMON_VERSION,
            format!(
                "frame versions {} to {} and this node's {} to {} have none in common; upgrade \
                 the older node",
                remote.version_min, remote.version_max, local.version_min, local.version_max
            ),
        ));
    }
    if remote.role != Role::Peer {
        return Err(Reject::new(
            Reject::ROLE_NOT_SERVED,
            format!("this node serves no {:?} connections", remote.role),
        ));
    }
    let Some(node) = remote.from else {
        return Err(Reject::new(Reject::MALFORMED, "a peer must say its node id"));
    };
    if Some(node) == local.from {
        return Err(own_id(local, remote, node));
    }
    if let Some(expected) = known.expected
        && expected != node
    {
        return Err(Reject::new(
            Reject::NOT_ME,
            format!("node {node} answered where node {expected} was expected; check the addresses"),
        ));
    }
    if remote.to != local.from {
        let meant = remote.to.map_or_else(|| "nobody".into(), |to| format!("node {to}"));
        let here = local.from.map_or_else(|| "nobody".into(), |id| format!("node {id}"));
        return Err(Reject::new(
            Reject::NOT_ME,
            format!("{meant} was meant, but {here} listens here; check the addresses"),
        ));
    }
    if let Some(disk) = known.disk
        && disk != remote.disk
    {
        let words = format!(
            "node {node} is a member with data directory {disk} but comes with {}; if its disk \
             was lost, remove it and let it join under a new id",
            remote.disk
        );
        return Err(Reject { code: Reject::WRONG_DISK, words, known_disk: Some(disk) });
    }
    if remote.founders_hash != 0
        && local.founders_hash != 0
        && remote.founders_hash != local.founders_hash
    {
        return Err(Reject::new(
            Reject::FOUNDERS_DIFFER,
            format!(
                "node {node} was bootstrapped with another list of founders or settings ({:016x}, \
                 here {:016x}); bootstrap all founders with the same",
                remote.founders_hash, local.founders_hash
            ),
        ));
    }
    judge_lives(node, remote, known)?;
    Ok(Accepted {
        peer: PeerIdentity { node, disk: remote.disk, boot: remote.boot },
        instance: remote.instance,
        version,
        frame_bytes_max: remote.frame_bytes_max as usize,
        address: remote.address.clone(),
    })
}

fn own_id(local: &Identity, remote: &Identity, node: NodeId) -> Reject {
    if remote.instance == local.instance {
        Reject::new(
            Reject::SELF_CONNECTION,
            format!("node {node} reached itself; a peer's address is its own"),
        )
    } else {
        Reject::new(
            Reject::ID_IN_USE,
            format!(
                "node {node} is running already, as another process; give each node its own id"
            ),
        )
    }
}

/// One life of a node at a time: a later boot replaces an earlier one, and nothing else does.
fn judge_lives(node: NodeId, remote: &Identity, known: &Known) -> Result<(), Reject> {
    let Some((disk, boot, instance)) = known.connected else { return Ok(()) };
    let second = |what: &str| {
        Reject::new(
            Reject::ID_IN_USE,
            format!("node {node} is connected already, {what}; stop one of the two"),
        )
    };
    if disk != remote.disk {
        return Err(second(&format!("from data directory {disk}, not {}", remote.disk)));
    }
    if boot == remote.boot && instance != remote.instance {
        return Err(second("as another process on a copy of its data directory"));
    }
    if boot > remote.boot {
        return Err(Reject::new(
            Reject::STALE_BOOT,
            format!(
                "node {node} is connected already in its life {}, after {}; its data directory \
                 seems to be an old copy",
                boot.0, remote.boot.0
            ),
        ));
    }
    Ok(())
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
        judge(&here(), remote, known).err().map(|reject| reject.code)
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
        let reject = judge(&here(), &there(), &other_disk).unwrap_err();
        assert_eq!((reject.code, reject.known_disk), (Reject::WRONG_DISK, Some(DiskId(9))));
        for named in ["node 2", &DiskId(9).to_string(), &DiskId(102).to_string()] {
            assert!(reject.words.contains(named), "{reject}");
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
}
