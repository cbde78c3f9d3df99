"""Whatever users write, units do and etcd forgets, cut anywhere: two hosts come to rest where they should."""

import dataclasses
import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from core.vms import ABSENT, UUID
from uncloud_host.actions import Action, Release, Reset, Secure, SetStatus, Start, Stop, Tell, Wait
from uncloud_host.claiming import SHOULD_RUN, UP
from uncloud_host.facts import Claim, Desired, Doubt, Gone, Me, Observed
from uncloud_host.models import VM, Status, parse
from uncloud_host.reconcile import must_read, plan, settled
from uncloud_host.unit import Evidence, State

PASSES = 16  # of both hosts, to rest; the longest way is claim, stop, gone, release there, claim, start, running here
NOW = 1e9
GONE = Gone(UUID)
BACKWARDS = Doubt("etcd went backwards", everything=True)


@dataclass
class Etcd:
    """What etcd's documentation promises, for one entry and one claim."""

    revision: int = 1
    entry: VM | Gone = GONE
    claim: Claim | None = None
    backups: list[tuple[int, VM | Gone, Claim | None]] = field(default_factory=list)
    is_robbed: bool = False  # entry and claim were gone, and nobody has written an entry or confirmed anything since

    def write(self, fields: dict[str, object] | None) -> None:
        self.revision += 1
        if fields is None:
            self.entry = Gone(UUID)
            self.is_robbed |= self.claim is None
            return
        self.is_robbed = False
        created = self.entry.create_revision if isinstance(self.entry, VM) else self.revision
        self.entry = VM(UUID, parse(json.dumps(fields).encode()), created, self.revision)

    def put_claim(self, claim: Claim | None) -> None:
        self.revision += 1
        self.claim = dataclasses.replace(claim, mod_revision=self.revision) if claim else None

    def fields(self) -> dict[str, object]:
        assert isinstance(self.entry, VM)
        return self.entry.entry.model_dump(mode="json", exclude_defaults=True)

    def is_at(self, entry: int, claim: int) -> bool:
        """Compare the mod_revisions of entry and claim; 0: absent."""
        now = self.entry.mod_revision if isinstance(self.entry, VM) else 0
        return (now, self.claim.mod_revision if self.claim else 0) == (entry, claim)


@dataclass
class Host:
    """A host with its unit, and what its agent knows: an entry and a claim that may be out of date."""

    me: Me
    etcd: Etcd
    unit: Observed = ABSENT
    seen: Desired = GONE
    claim: Claim | None = None
    doubt: Doubt | None = None
    is_waiting: bool = False
    is_witness: bool = False  # ran it when etcd was restored; nobody has said anything since

    def actions(self) -> list[Action]:
        desired, claim = self.seen, self.claim
        if not self.doubt and settled(desired, self.unit, claim, self.me, now=NOW):
            return []
        if self.doubt or must_read(desired, self.unit, claim, self.me):
            desired, claim = self.etcd.entry, self.etcd.claim
        wait = "etcd went backwards" if self.is_waiting else ""
        return plan(desired, self.unit, claim, self.me, now=NOW, retry=False, doubt=self.doubt, wait=wait)

    def look(self) -> None:
        """The watch tells what is in etcd."""
        self.seen, self.claim = self.etcd.entry, self.etcd.claim

    def pass_(self, at_most: int = 99) -> None:
        actions = self.actions()
        for action in actions[:at_most]:
            if not self.do(action):
                return
        if at_most >= len(actions):
            self.doubt = None

    def do(self, action: Action) -> bool:  # noqa: C901 - a table
        etcd = self.etcd
        match action:
            case Start(vm):
                return self.start(vm)
            case Stop():
                self.check_cause(action)
                self.become(State.STOPPING)
            case Reset():
                assert self.unit.state == State.FAILED
                self.unit = ABSENT
            case Secure(claim, entry):
                if not etcd.is_at(entry, claim.mod_revision):
                    return False
                etcd.put_claim(claim)
            case SetStatus(revision, status, text):
                if not isinstance(etcd.entry, VM) or revision != etcd.entry.mod_revision:
                    return False
                rest = {key: value for key, value in etcd.fields().items() if key != "status_reason"}
                word = {"status": str(status)} if status else {}
                etcd.write(rest | word | ({"status_reason": text} if text else {}))
            case Release(claim):
                assert self.unit.state == State.ABSENT, "released while it may run"
                if etcd.claim != claim:
                    return False
                etcd.put_claim(None)
            case Tell() | Wait():
                pass
        return True

    def start(self, vm: VM) -> bool:
        etcd = self.etcd
        if not isinstance(etcd.entry, VM) or vm.mod_revision != etcd.entry.mod_revision:
            return False
        if etcd.claim and not etcd.claim.is_of(self.me):
            self.claim = etcd.claim
            return False
        old, new = etcd.claim, Claim(UUID, *dataclasses.astuple(self.me), f"c{etcd.revision}", vm.create_revision, "")
        if not old or (old.entry, old.held) != (vm.create_revision, None):
            etcd.put_claim(new)
        assert etcd.claim
        evidence = Evidence(self.me.host, etcd.claim.id, vm.mod_revision, "f", "n", "")
        self.unit = Observed(State.STARTING, evidence, f"i{etcd.revision}")
        return True

    def check_cause(self, stop: Stop) -> None:
        """Nothing is stopped without an explicit statement that is believed, or the guest's own."""
        entry, claim = self.etcd.entry, self.etcd.claim
        if self.unit.state == State.EXITED:
            return
        assert not self.doubt, stop
        assert not self.is_witness, stop
        if isinstance(entry, Gone):
            assert claim is not None, stop
            assert claim.is_of(self.me), stop
            assert not claim.held, stop
            assert not self.etcd.is_robbed, stop
            return
        elsewhere = entry.entry.host != self.me.host or entry.entry.status not in SHOULD_RUN
        again = claim is not None and claim.entry != entry.create_revision
        restart = entry.entry.status == Status.TO_RESTART
        assert elsewhere or again or restart, stop

    def become(self, state: State) -> None:
        self.unit = dataclasses.replace(self.unit, state=state)

    def systemd_goes_on(self, *, stop_fails: bool = False) -> None:
        match self.unit.state:
            case State.STARTING | State.RESTARTING:
                self.become(State.RUNNING)
            case State.STOPPING if stop_fails:
                self.become(State.FAILED)
            case State.STOPPING:
                self.unit = ABSENT


class World:
    """Two hosts and one etcd."""

    def __init__(self) -> None:
        self.etcd = Etcd()
        self.hosts = [Host(Me(f"vmhost{n}", f"m{n}", f"b{n}"), self.etcd) for n in (1, 2)]

    def happen(self, kind: str, what: object, number: int) -> None:  # noqa: C901 - a table
        host = self.hosts[number]
        match kind, what:
            case "write", (dict() | None) as entry:
                self.etcd.write(entry)
                self.believe()
            case "touch", _ if isinstance(self.etcd.entry, VM):  # a scheduler writes something of its own
                self.etcd.write(self.etcd.fields())
            case "look and pass", _:
                host.look()
                host.pass_()
            case "unit", State() as state if host.unit.state not in (State.ABSENT, State.STOPPING):
                host.become(state)
            case "pass", int() as count:
                host.pass_(at_most=count)
            case "systemd", bool() as stop_fails:
                host.systemd_goes_on(stop_fails=stop_fails)
            case "backup", _:
                self.etcd.backups.append((self.etcd.revision, self.etcd.entry, self.etcd.claim))
            case "restore", _:
                self.restore()
            case "lose claim", _:
                self.lose_claim()
            case "reboot", _:
                host.me = dataclasses.replace(host.me, boot_id=host.me.boot_id + "'")
                host.unit, host.doubt = ABSENT, None
        running = [host.me.host for host in self.hosts if host.unit.state not in (State.ABSENT, State.FAILED)]
        assert len(running) < 2, "it runs twice"

    def restore(self) -> None:
        """Etcd loses its data or gets an old backup; everybody notices, and nobody starts anything for a while."""
        self.etcd.revision, self.etcd.entry, self.etcd.claim = (self.etcd.backups or [(1, Gone(UUID), None)])[0]
        self.etcd.is_robbed = isinstance(self.etcd.entry, Gone)
        for host in self.hosts:
            host.look()
            host.is_waiting = True
            host.is_witness = host.unit.state in UP
            host.doubt = BACKWARDS if host.unit.state != State.ABSENT else None
        for host in self.hosts:
            host.pass_()
        for host in self.hosts:
            host.is_waiting = False

    def lose_claim(self) -> None:
        """Somebody deletes the claim, and with it a hold; the host that runs the VM is the first who notices."""
        self.etcd.put_claim(None)
        self.believe()
        self.etcd.is_robbed |= isinstance(self.etcd.entry, Gone)
        for host in self.hosts:
            host.claim = None
            if host.unit.state != State.ABSENT:
                host.look()
                host.pass_()

    def rest(self) -> None:
        for _ in range(PASSES):
            for number in (0, 1):
                self.happen("look and pass", None, number)
                self.happen("systemd", False, number)
        left = [action for host in self.hosts for action in host.actions() if not isinstance(action, Tell)]
        assert left == []

    def believe(self) -> None:
        for host in self.hosts:
            host.is_witness = False

    def confirm(self) -> None:
        self.believe()
        if self.etcd.claim and self.etcd.claim.held:
            self.etcd.put_claim(dataclasses.replace(self.etcd.claim, held=False))
            self.etcd.is_robbed = False

    def check(self) -> None:
        """At rest, and with all holds confirmed, the world is as the entry says."""
        entry, claim = self.etcd.entry, self.etcd.claim
        states = {host.me.host: host.unit.state for host in self.hosts}
        if isinstance(entry, Gone) or entry.entry.status == Status.STOP:
            assert set(states.values()) == {State.ABSENT}
            assert claim is None
            return
        here = states.pop(entry.entry.host)
        assert set(states.values()) == {State.ABSENT}
        assert entry.entry.status in (Status.RUNNING, Status.FAILED)
        if entry.entry.status == Status.RUNNING:
            assert here == State.RUNNING
            assert claim is not None
            assert claim.host == entry.entry.host
            assert claim.held is None
        else:
            assert here not in UP


HOSTS = st.sampled_from(["vmhost1", "vmhost1", "vmhost2"])
ENTRIES = st.none() | st.fixed_dictionaries(
    {"host": HOSTS, "restart": st.sampled_from(["always", "on-failure", "no"])},
    optional={"status": st.sampled_from([str(status) for status in Status])},
)
STATES = st.sampled_from([State.RESTARTING, State.EXITED, State.FAILED, State.RUNNING])
PASS = st.just(("look and pass", None))
CUT = st.tuples(
    st.just("pass"), st.integers(0, 2)
)  # by what was seen before; so many actions, then the agent is killed
RARE = st.sampled_from([(kind, None) for kind in ("backup", "restore", "lose claim", "reboot", "touch")])
WRITE = st.tuples(st.just("write"), ENTRIES)
HAPPENINGS = st.one_of(
    WRITE, WRITE, PASS, PASS, PASS, CUT, RARE,
    st.tuples(st.just("systemd"), st.booleans()), st.tuples(st.just("unit"), STATES),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(HAPPENINGS, st.integers(0, 1)), max_size=40))
def test_it_comes_to_rest_where_it_should(happenings: list[tuple[tuple[str, object], int]]) -> None:
    world = World()
    world.etcd.write({"host": "vmhost1"})
    for (kind, what), number in happenings:
        world.happen(kind, what, number)
    world.rest()
    world.confirm()
    world.rest()
    world.check()
