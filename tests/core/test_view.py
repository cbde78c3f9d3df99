"""What people are shown of a VM, as tables: desired, observed and claim give a row, and what a pass would do."""

import dataclasses
import json

import pytest

from uncloud_host import view
from uncloud_host.config import variables
from uncloud_host.facts import Claim, Gone, Invalid, Me, Observed
from uncloud_host.models import VM, parse
from uncloud_host.unit import Evidence, State
from uncloud_host.view import Seen

UUID = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11"
OTHER = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e12"
SOCKET = f"/run/uncloud-vm/{UUID}/vnc.sock"
ME = Me("vmhost1", "m1", "b1")
MINE = Claim(UUID, "vmhost1", "m1", "b1", "c1", 3, "", mod_revision=4)
HELD = dataclasses.replace(MINE, held=True)
TWIN = dataclasses.replace(MINE, machine_id="m2")  # another machine with our name
OTHERS = Claim(UUID, "vmhost2", "m2", "b2", "c2", 3, "", mod_revision=4)
UNREADABLE = Claim(UUID, "", "", "", "", 0, "", mod_revision=4)
FINGERPRINT = parse(b'{"host": "vmhost1", "name": "web-1"}').fingerprint()
INVALID = Invalid(UUID, "invalid entry: smp: expected more", 3, 9, told=False)
FOREIGN = Observed(State.RUNNING, None, "i1", 0, 100.0)


def seen(
    status: str | None = "RUNNING", state: str = "running", claim: Claim | None = MINE, *, vnc="", **fields: object
) -> Seen:
    written = {"host": "vmhost1", "name": "web-1"} | ({"status": status} if status else {}) | fields
    vm = VM(UUID, parse(json.dumps(written).encode()), create_revision=3, mod_revision=9)
    return Seen(vm, written, unit(state, vnc), claim)


def unit(state: str, vnc: str = "", host: str = "vmhost1") -> Observed:
    if state == "absent":
        return Observed(State.ABSENT)
    return Observed(State(state), Evidence(host, "c1", 5, FINGERPRINT, "web-1", vnc), "i1", 0, 100.0)


def gone(observed: Observed, claim: Claim | None = MINE) -> Seen:
    return Seen(Gone(UUID), {}, observed, claim)


ROWS = [
    # what was found                                    ASKED      UNIT          CLAIM       VNC     NOTE
    (seen(),                                            "RUNNING", "running",    "vmhost1", SOCKET, ""),
    (seen(None),                                        "-",       "running",    "vmhost1", SOCKET, ""),
    (seen("TO_STOP", "stopping"),                       "TO_STOP", "stopping",   "vmhost1", SOCKET, ""),
    (seen(state="restarting"),                          "RUNNING", "restarting", "vmhost1", "-",    ""),
    (seen(state="exited"),                              "RUNNING", "exited",     "vmhost1", "-",    ""),
    (seen("STOP", "absent", None),                      "STOP",    "absent",     "-",        "-",    ""),
    (seen("STOP", "absent", None, status_reason="by"),  "STOP",    "absent",     "-",        "-",    "by"),
    (seen("STOP", "absent", None, status_reason=[1]),   "STOP",    "absent",     "-",        "-",    ""),
    (seen(vnc="[::1]:5901"),                            "RUNNING", "running",    "vmhost1", "[::1]:5901", ""),
    (seen(memory=99),                                   "RUNNING", "running",    "vmhost1", SOCKET, "pending"),
    (seen(memory=99, status_reason="by"),               "RUNNING", "running",    "vmhost1", SOCKET, "pending; by"),
    (seen("FAILED", "failed", memory=99),               "FAILED",  "failed",     "vmhost1", "-",    ""),
    (seen("TO_START", "absent", OTHERS),                "TO_START", "absent",    "vmhost2!", "-",    ""),
    (seen("TO_START", "absent", TWIN),                  "TO_START", "absent",    "vmhost1!", "-",    ""),
    (seen("TO_START", "absent", UNREADABLE),            "TO_START", "absent",    "?!",       "-",    ""),
    (seen("RUNNING", "absent", OTHERS, host="vmhost2"), "RUNNING", "-",          "vmhost2",  "-",    ""),
    (seen("RUNNING", "running", host="vmhost2"), "RUNNING", "running", "vmhost1", SOCKET, "its host is vmhost2"),
    (seen("RUNNING", "absent", host="vmhost2"), "RUNNING", "absent", "vmhost1", "-", "its host is vmhost2"),
    (gone(unit("running")),                             "-",       "running",    "vmhost1", SOCKET, "no entry"),
    (gone(unit("running"), HELD),                       "-",       "running",    "vmhost1", SOCKET, "held; no entry"),
    (gone(unit("running"), None),                       "-",       "running",    "-",        SOCKET, "no entry"),
    (gone(unit("absent")),                              "-",       "absent",     "vmhost1", "-",    "no entry"),
    (gone(unit("running", host="old")), "-", "running", "vmhost1", SOCKET, "no entry; started as old's"),
    (gone(FOREIGN, None),                               "-",       "foreign",    "-",        "-",    "no entry"),
    (Seen(INVALID, {"host": "vmhost1"}, unit("running"), MINE),
     "-", "running", "vmhost1", SOCKET, "invalid entry: smp: expected more"),
    (Seen(INVALID, {"host": "vmhost1", "status": 5, "name": ["x"]}, unit("absent"), None),
     "-", "absent", "-", "-", "invalid entry: smp: expected more"),
]  # fmt: skip


SCREENS = [
    # what was found                             the socket is there    screens
    (seen(),                                         None,              [SOCKET]),
    (seen(vnc="[::1]:5901"),                         None,              ["[::1]:5901", SOCKET]),
    (seen(vnc="[::1]:5901"),                         False,             ["[::1]:5901"]),
    (seen(),                                         False,             []),
    (seen(state="restarting", vnc="[::1]:5901"),     None,              []),
    (seen("STOP", "absent", None),                   None,              []),
    (dataclasses.replace(seen(), desired=INVALID),   None,              [SOCKET]),
]  # fmt: skip


@pytest.mark.parametrize(("found", "has_socket", "screens"), SCREENS)
def test_screens(found: Seen, has_socket: bool | None, screens: list[str]) -> None:
    assert view.screens(found, has_socket=has_socket) == screens
    if has_socket is None:
        assert view.record(found, ME, [])["screens"] == screens


@pytest.mark.parametrize(("found", "asked", "state", "claim", "vnc", "note"), ROWS)
def test_a_row(found: Seen, asked: str, state: str, claim: str, vnc: str, note: str) -> None:
    line = view.table([view.row(found, ME)], now=142.0, hosts=False).splitlines()[1]
    since = "-" if state in ("absent", "-") else "42s"
    assert line.split(maxsplit=7) == list(
        filter(None, [UUID, view.row(found, ME).name, asked, state, since, claim, vnc, note])
    )


def test_a_table_has_a_column_for_hosts_where_there_are_several() -> None:
    rows = [view.row(found, ME) for found in (seen(), seen("STOP", "absent", None, host="vmhost2"))]
    lines = view.table(rows, now=142.0, hosts=True).splitlines()
    assert lines[0].split() == ["UUID", "NAME", "HOST", *view.HEAD[2:]]
    assert [line.split()[2] for line in lines[1:]] == ["vmhost1", "vmhost2"]


def test_a_name_can_do_nothing_to_a_terminal() -> None:
    found = seen()
    rows = [view.row(dataclasses.replace(found, written={"name": "a\x1b[31m\nb\u202ec\ud800"}), ME)]
    assert " a?[31m?b?c?  " in view.table(rows, now=0.0, hosts=False)


def test_for_programs_the_time_is_a_timestamp() -> None:
    assert view.row(seen(), ME).since == "1970-01-01T00:01:40.000Z"
    assert view.row(seen("STOP", "absent", None), ME).since is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (172800, "2d"), (1e8, "1157d")],
)
def test_short_times(seconds: float, text: str) -> None:
    assert view.short(seconds) == text


WAIT = "wait: its status is FAILED; tried again after 5, 10, 20, 40, 60 minutes, at once with TO_START"
STEPS = [
    (seen(), []),
    (seen("TO_START", "absent", None), ["start: its status is TO_START"]),
    (seen("TO_START", "absent", OTHERS), ["set-status-reason: waits for vmhost2, which has its claim"]),
    (seen("TO_START"), ["set-status RUNNING: it runs"]),
    (seen("TO_STOP"), ["stop: its status is TO_STOP"]),
    (seen("STOP", "absent"), ["release: its status is STOP"]),
    (seen("FAILED", "absent"), [WAIT]),
    (seen("FAILED", "absent", restart="no"), []),
    (seen("RUNNING", "running", host="vmhost2"), ["stop: the entry's host is vmhost2 now"]),
    (seen("RUNNING", "absent", OTHERS, host="vmhost2"), []),
    (Seen(INVALID, {"host": "vmhost2"}, Observed(State.ABSENT), None), []),
    (Seen(INVALID, {"host": "vmhost1"}, Observed(State.ABSENT), None),
     [f"tell invalid: {INVALID.reason}", f"set-status-reason: {INVALID.reason}"]),
]  # fmt: skip


@pytest.mark.parametrize(("found", "steps"), STEPS)
def test_what_a_pass_would_do(found: Seen, steps: list[str]) -> None:
    assert [str(step) for step in view.steps(found, ME, now=200.0)] == steps


NAMES = {UUID: "web-1", OTHER: "5d", "aaaaaaaa-3f59-4a83-9a1a-2b7c1d9f0e13": "web-1", "foo": "foo"}


@pytest.mark.parametrize(
    ("word", "found"),
    [
        (UUID, 1), ("5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e1", 2), ("5d", 1), ("5d3", 2), ("aaaa", 1),
        ("AAAA", 1), ("foo", 1),
        ("web-1", 2), ("web", 0), ("", 0), ("x", 0),
    ],
)  # fmt: skip
def test_a_word_means_a_uuid_a_name_or_the_beginning_of_a_uuid(word: str, found: int) -> None:
    assert len(view.matching(word, NAMES)) == found


def test_a_record_as_fields_with_the_paths_of_jq() -> None:
    fields = dict(view.flat(view.record(seen(nics=[{"bridge": "br0"}]), ME, [view.Step("start", "why")])))
    assert (fields["entry.memory"], fields["entry.vnc.unix"], fields["claim_record.id"]) == ("1024", "true", "c1")
    assert fields["entry.nics[0].mac"].startswith("02:")
    assert (fields["plan[0].reason"], fields["entry.disks"], fields["unit_name"]) == ("why", "-", f"vm-{UUID}.service")
    json.dumps(view.record(gone(FOREIGN, None), ME, []))


def test_variables_are_read_from_a_file_as_systemd_does() -> None:
    text = """
# UNCLOUD_ETCD=no
; UNCLOUD_ETCD=no
UNCLOUD_ETCD=http://a:1 http://b:1
  UNCLOUD_PREFIX = "/v2"
UNCLOUD_CPU='max'
UNCLOUD_SMTP="a\\"b"
UNCLOUD_MAIL_TO=
PATH=/nowhere
nonsense
"""
    assert variables(text) == {
        "UNCLOUD_ETCD": "http://a:1 http://b:1", "UNCLOUD_PREFIX": "/v2", "UNCLOUD_CPU": "max", "UNCLOUD_SMTP": 'a"b',
        "UNCLOUD_MAIL_TO": "",
    }  # fmt: skip
