"""What an audit reads, and what it finds. See `audit`, which makes the one out of the other."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from uncloud_host.events import LASTING, Event, Name, stamp
from uncloud_host.facts import Claim, Desired, Me, Observed
from uncloud_host.models import is_uuid
from uncloud_host.strangers import Program
from uncloud_host.unit import Service

Key = tuple[str, str]  # kind and about, as in troubles.py


class Code(StrEnum):
    """The classes of findings, an interface for people and programs."""

    MISSING = "missing"
    FOREIGN = "foreign"
    WRONG_HOST = "wrong-host"
    STALE = "stale"
    AGENT_DOWN = "agent-down"
    HOST_SILENT = "host-silent"
    UNKNOWN_HOST = "unknown-host"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. Times in seconds."""

    code: Code
    about: str  # a VM's uuid, a unit, a process or a host
    sentence: str
    since: float  # 1970; when it began or, if nobody can know, when it was first seen
    after: float = 0.0  # so long it must last to count
    name: str = ""  # of the VM
    event: Name | None = None  # what is told of it; nothing if it is only listed
    subject: str = ""  # what makes it the same event as somebody else's
    invocation: str = ""

    @property
    def kind(self) -> str:
        """What it is among the troubles that last; else nothing."""
        return LASTING[self.event] if self.event else ""

    @property
    def key(self) -> Key:
        """What makes it the same finding the next time."""
        return self.kind or self.code, self.about

    @property
    def due(self) -> float:
        """When it counts."""
        return self.since + self.after

    def told(self, host: str, now: float) -> Event:
        """Make the event of it."""
        assert self.event is not None  # noqa: S101 - for mypy: the others are not told
        vm = self.about if is_uuid(self.about) else ""
        subject = self.subject or f"{self.about} {stamp(datetime.fromtimestamp(self.since, UTC))}"
        # A mail dated when a stranger began, perhaps a month ago, would be read by nobody.
        at = datetime.fromtimestamp(now if self.code == Code.FOREIGN else self.since, UTC)
        return Event(vm, self.event, subject, at, host, self.name or vm, self.sentence, self.invocation)

    def record(self) -> dict[str, object]:
        """Give it for JSON."""
        since = stamp(datetime.fromtimestamp(self.since, UTC))
        return {"code": self.code, "about": self.about, "name": self.name, "since": since, "what": self.sentence}


@dataclass(frozen=True, slots=True)
class Shown:
    """What a host says of itself: /host/NAME."""

    machine_id: str
    boot_id: str
    since: float  # when its agent began


@dataclass(slots=True)
class Named:
    """How often etcd names a host."""

    run: int = 0  # entries that should run there
    all: int = 0  # these, and those that are still to be stopped
    claims: int = 0
    example: str = ""  # the uuid of one that should run there


@dataclass(frozen=True, slots=True)
class Asked:
    """What etcd says, as far as it concerns this host."""

    vms: Mapping[str, tuple[Desired, Claim | None]] = field(default_factory=dict)
    hosts: Mapping[str, Shown] = field(default_factory=dict)
    audited: Collection[str] = ()
    named: Mapping[str, Named] = field(default_factory=dict)  # hosts that are not there, or not audited
    logged: Collection[str] = ()  # of these: those that have told something some time


@dataclass(frozen=True, slots=True)
class Found:
    """All that was read, at `now` (seconds since 1970)."""

    me: Me
    now: float
    agent: Service
    units: Mapping[str, Observed] = field(default_factory=dict)
    odd: Collection[str] = ()  # units vm-* that are no uuid's
    programs: Sequence[Program] = ()
    mains: Mapping[str, int] = field(default_factory=dict)  # main processes, of units with several programs
    stopped: Collection[str] = ()  # VMs that somebody stopped by hand, which is still to be written into their entries
    open: Mapping[Key, float] = field(default_factory=dict)  # troubles that last already, and since when
    etcd: Asked | None = None  # None: it could not be read
