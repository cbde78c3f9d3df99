"""Whatever users write and units do, in any order, cut anywhere: passes come to rest, and where they should."""

import dataclasses
import json
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from uncloud_host.models import VM, Status, parse
from uncloud_host.reconcile import (
    Action,
    Claim,
    Gone,
    Me,
    Observed,
    Release,
    Reset,
    SetStatus,
    Start,
    Stop,
    Tell,
    needs_claim,
    plan,
    settled,
)
from uncloud_host.unit import Evidence, State

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
ME = Me("vmhost1", "m1", "b1")
ABSENT = Observed(State.ABSENT)
PASSES = 12  # to rest; the longest way is failed, reset, stop, gone, claim, start, running


@dataclass
class Host:
    """A model of etcd and systemd for one VM: just what their documentation promises."""

    entry: dict[str, object] | None = None
    revision: int = 1
    created: int = 1
    unit: Observed = ABSENT
    claim: Claim | None = None

    def write(self, entry: dict[str, object] | None) -> None:
        self.revision += 1
        if self.entry is None:
            self.created = self.revision
        self.entry = entry

    def desired(self) -> VM | Gone:
        if self.entry is None:
            return Gone(UUID)
        return VM(UUID, parse(json.dumps(self.entry).encode()), self.created, self.revision)

    def actions(self) -> list[Action]:
        desired = self.desired()
        if settled(desired, self.unit, ME, now=1e9):
            return []
        claim = self.claim if needs_claim(desired, ME) else None
        return plan(desired, self.unit, claim, ME, now=1e9, retry=False)

    def do(self, action: Action) -> None:
        match action:
            case Start(vm):
                if self.unit.state == State.ABSENT and (self.claim is None or self.claim.machine_id == "m1"):
                    self.claim = Claim(UUID, "vmhost1", "m1", "b1", "c1", vm.create_revision, "", 1)
                    evidence = Evidence("vmhost1", "c1", vm.mod_revision, "f", "n", "")
                    self.unit = Observed(State.STARTING, evidence, f"i{self.revision}")
            case Stop():
                self.check_cause(action)
                self.become(State.STOPPING)
            case Reset():
                assert self.unit.state == State.FAILED
                self.unit = Observed(State.ABSENT)
            case SetStatus(revision, status, text):
                if revision == self.revision and self.entry is not None:
                    rest = {key: value for key, value in self.entry.items() if key != "status_reason"}
                    word = {"status": str(status)} if status else {}
                    self.write(rest | word | ({"status_reason": text} if text else {}))
            case Release():
                assert self.unit.state == State.ABSENT, "released while it may run"
                self.claim = None
            case Tell():
                pass

    def check_cause(self, action: Stop) -> None:
        """Nothing is stopped without an explicit statement, or the guest's own."""
        said = self.entry is None or self.entry["host"] != "vmhost1"
        said |= self.entry is not None and self.entry.get("status") in ("TO_STOP", "STOP", "TO_RESTART")
        assert said or self.unit.state == State.EXITED, action
        if self.entry is None:
            assert self.claim is not None, "stopped for a deletion that is not believed"

    def become(self, state: State) -> None:
        self.unit = dataclasses.replace(self.unit, state=state)

    def systemd_goes_on(self, *, stop_fails: bool = False) -> None:
        match self.unit.state:
            case State.STARTING | State.RESTARTING:
                self.become(State.RUNNING)
            case State.STOPPING:
                self.unit = dataclasses.replace(self.unit, state=State.FAILED) if stop_fails else Observed(State.ABSENT)


HOSTS = st.sampled_from(["vmhost1", "vmhost1", "vmhost1", "vmhost2"])
ENTRIES = st.none() | st.fixed_dictionaries(
    {"host": HOSTS, "restart": st.sampled_from(["always", "on-failure", "no"])},
    optional={"status": st.sampled_from([str(status) for status in Status])},
)
STATES = st.sampled_from([State.RESTARTING, State.EXITED, State.FAILED, State.RUNNING])
EVENTS = st.lists(
    st.tuples(st.just("write"), ENTRIES)
    | st.tuples(st.just("unit"), STATES)
    | st.tuples(st.just("pass"), st.integers(0, 2))  # so many actions, then the agent is killed
    | st.tuples(st.just("systemd"), st.booleans()),
    max_size=30,
)


@given(EVENTS)
def test_it_comes_to_rest_where_it_should(events: list[tuple[str, object]]) -> None:
    host = Host()
    for kind, what in events:
        match kind, what:
            case "write", (dict() | None) as entry:
                host.write(entry)
            case "unit", State() as state if host.unit.state not in (State.ABSENT, State.STOPPING):
                host.become(state)
            case "pass", int() as count:
                for action in host.actions()[:count]:
                    host.do(action)
            case "systemd", bool() as stop_fails:
                host.systemd_goes_on(stop_fails=stop_fails)
    for _ in range(PASSES):
        for action in host.actions():
            host.do(action)
        host.systemd_goes_on()
    assert [action for action in host.actions() if not isinstance(action, Tell)] == []
    check_rest(host)


def check_rest(host: Host) -> None:
    if host.entry is None or host.entry["host"] != "vmhost1":
        held = host.entry is None and host.claim is None and host.unit.state != State.ABSENT
        assert held or (host.unit.state == State.ABSENT and host.claim is None)
        return
    match host.entry["status"]:
        case "RUNNING":
            assert host.unit.state == State.RUNNING
            assert host.claim is not None
        case "STOP":
            assert host.unit.state == State.ABSENT
            assert host.claim is None
        case "FAILED":
            assert host.unit.state in (State.FAILED, State.ABSENT)
        case status:
            raise AssertionError(f"at rest with {status}")
