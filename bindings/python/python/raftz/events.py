"""What a node tells of itself: one class a kind, with the numbers that all languages share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from .status import Membership as _Membership

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Dropped",
    "Event",
    "Faulted",
    "Healed",
    "Leader",
    "Membership",
    "NetworkTrouble",
    "Nonsense",
    "PeerDown",
    "PeerRefused",
    "PeerStalled",
    "PeerUp",
    "Ready",
    "Role",
    "Snapshot",
    "StorageFull",
    "StorageTrouble",
    "Transfer",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth telling. Nothing depends on an event being seen."""

    KIND: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class Role(Event):
    """The node's role or term changed; `role` is follower, pre-candidate, candidate or leader."""

    KIND: ClassVar[int] = 1
    role: str
    term: int


@dataclass(frozen=True, slots=True)
class Leader(Event):
    """Another leader is known, or none any more."""

    KIND: ClassVar[int] = 2
    leader: int | None
    term: int


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The leader has committed an entry of its own term."""

    KIND: ClassVar[int] = 3
    term: int


@dataclass(frozen=True, slots=True)
class Membership(Event):
    """A membership took effect."""

    KIND: ClassVar[int] = 4
    index: int
    membership: _Membership


@dataclass(frozen=True, slots=True)
class PeerUp(Event):
    """A link to a peer is usable."""

    KIND: ClassVar[int] = 5
    peer: int


@dataclass(frozen=True, slots=True)
class PeerDown(Event):
    """No link to a peer is usable any more."""

    KIND: ClassVar[int] = 6
    peer: int
    reason: str


@dataclass(frozen=True, slots=True)
class PeerRefused(Event):
    """A peer was refused because it is not what the membership says."""

    KIND: ClassVar[int] = 7
    peer: int
    disk_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Nonsense(Event):
    """A message that no honest node sends was dropped."""

    KIND: ClassVar[int] = 8
    peer: int
    what: str


@dataclass(frozen=True, slots=True)
class Healed(Event):
    """Damaged entries have been replaced by the leader's; the log is whole up to `index`."""

    KIND: ClassVar[int] = 9
    index: int


@dataclass(frozen=True, slots=True)
class PeerStalled(Event):
    """A peer answers, but its log has not moved for a long time although it is behind."""

    KIND: ClassVar[int] = 10
    peer: int
    match_index: int
    last_index: int


@dataclass(frozen=True, slots=True)
class StorageTrouble(Event):
    """Storage could not do something that the node can live without for now."""

    KIND: ClassVar[int] = 11
    detail: str


@dataclass(frozen=True, slots=True)
class NetworkTrouble(Event):
    """The network could not do something that concerns no peer in particular."""

    KIND: ClassVar[int] = 12
    detail: str


@dataclass(frozen=True, slots=True)
class StorageFull(Event):
    """Free disk space fell below the reserve (`full`), or rose above it again."""

    KIND: ClassVar[int] = 13
    full: bool


@dataclass(frozen=True, slots=True)
class Faulted(Event):
    """The node has stopped and does nothing more."""

    KIND: ClassVar[int] = 14
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot(Event):
    """A snapshot has come to this phase: built, sending, sent, fetching, fetched, installed or failed."""

    KIND: ClassVar[int] = 15
    phase: str
    peer: int | None
    index: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Transfer(Event):
    """Leadership is being handed over by this node: begun, done or failed."""

    KIND: ClassVar[int] = 16
    to: int
    phase: str
    detail: str


@dataclass(frozen=True, slots=True)
class Dropped(Event):
    """Events were dropped because nobody took them in time; of those that tell of a state, none."""

    KIND: ClassVar[int] = 17
    total: int


_MAKERS: dict[int, Callable[..., Event]] = {kind.KIND: kind for kind in Event.__subclasses__()}
_MAKERS[Membership.KIND] = lambda index, membership: Membership(index, _Membership(**membership))


def _event(shown: tuple[Any, ...]) -> Event:
    """What the native half gives, as an event."""
    kind, *fields = shown
    return _MAKERS[kind](*fields)
