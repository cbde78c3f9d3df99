"""Runs on disk: each is known from its beginning until its closed record is in etcd, whoever dies in between."""

from collections.abc import Sequence
from pathlib import Path

from uncloud_host import spool
from uncloud_host.endings import End, ended
from uncloud_host.facts import Me, Observed
from uncloud_host.runs import Boots, Runs
from uncloud_host.unit import Evidence, State

UUID, OTHER = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e12"
BOOT, OLD = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
BOOTED = 5000.0


def agent(
    directory: Path,
    boot_id: str = BOOT,
    last_entry: tuple[str, float] = ("", 0.0),
    left: Sequence[End] = (),
    host: str = "vmhost1",
) -> Runs:
    """The next one. The journal knows of the last entry of every other boot, and of ends there."""
    boots = Boots(lambda: BOOTED, lambda _boot: last_entry, lambda _boot, _since: list(left))
    return Runs(Me(host, "m1", boot_id), boots, directory=directory)


def running(invocation: str, since: float = 1000.0) -> Observed:
    return Observed(State.RUNNING, Evidence("vmhost1", "c1", 1, "f", "web-1", ""), invocation, since=since)


def over(runs: Runs, end: End) -> None:
    runs.over(end, ended(end, "vmhost1", runs.name(end.invocation)))


def killed(invocation: str, started: float = 1000.5, time: float = 1010.0) -> End:
    return End(UUID, invocation, "itself", exit_code="killed", exit_status="KILL", started=started, ended=time)


def test_a_run_is_written_open_and_then_closed_at_the_same_key(tmp_path: Path) -> None:
    runs = agent(tmp_path)
    runs.began(UUID, running("i1", since=1000.999))
    runs.began(UUID, running("i1", since=1003.0))
    (open_,) = runs.pending()
    runs.told([open_])
    assert runs.pending() == []
    over(runs, killed("i1", started=1000.997))
    (closed,) = runs.pending()
    assert (closed.path, closed.started, closed.stopped) == (open_.path, 1000997, 1010000)


def test_an_end_that_is_told_again_makes_no_second_record(tmp_path: Path) -> None:
    runs = agent(tmp_path)
    over(runs, killed("i1"))
    for again in (runs, agent(tmp_path)):
        over(again, killed("i1", started=999.0))
        assert [run.started for run in again.pending()] == [1000500]
    runs.told(runs.pending())
    for again in (runs, agent(tmp_path)):
        over(again, killed("i1"))
        again.began(UUID, running("i1"))
        assert again.pending() == []
    assert list(tmp_path.glob("runs/*.json")) == []


def test_what_was_told_is_kept_for_an_etcd_that_loses_it(tmp_path: Path) -> None:
    """See faults/test_storm, which restores backups: there an open record would be open for ever."""
    runs = agent(tmp_path)
    runs.began(OTHER, running("i2"))
    over(runs, killed("i1"))
    told = runs.pending()
    runs.told(told)
    again = agent(tmp_path)
    assert again.pending() == []
    again.reopen()
    assert again.closed_lately() == [run for run in told if run.stopped]
    assert again.pending() == [run for run in told if not run.stopped]


def test_a_record_that_is_closed_while_it_is_written_open_is_written_again(tmp_path: Path) -> None:
    runs = agent(tmp_path)
    runs.began(UUID, running("i1"))
    under_way = runs.pending()
    over(runs, killed("i1"))
    runs.told(under_way)
    assert [run.stopped for run in runs.pending()] == [1010000]


def test_what_was_stopped_between_two_runs_ended_before(tmp_path: Path) -> None:
    runs = agent(tmp_path)
    over(runs, killed("i1"))
    over(runs, End(UUID, "i1", "operator", result="success", ended=1020.0, is_after=True))
    assert [run.stopped for run in runs.pending()] == [1010000]
    over(runs, End(UUID, "i2", "operator", result="success", ended=1020.0, is_after=True))
    assert len(runs.pending()) == 1


def test_the_next_agent_knows_what_runs(tmp_path: Path) -> None:
    runs = agent(tmp_path)
    runs.began(UUID, running("i1"))
    runs.began(UUID, running("i2", since=2000.0))
    runs.began(OTHER, running("i3"))
    assert agent(tmp_path).here() == {UUID: "i1", OTHER: "i3"}
    assert agent(tmp_path, OLD).here() == {}
    assert agent(tmp_path).name("i1") == "web-1"
    assert [run.invocation for run in agent(tmp_path).pending()] == ["i1", "i2", "i3"]


def test_a_copy_of_an_installation_ends_no_run_that_goes_on_in_the_original(tmp_path: Path) -> None:
    runs = agent(tmp_path, OLD)
    for invocation in ("i1", "i2"):
        runs.began(UUID, running(invocation))
    over(runs, killed("i1"))
    copy = agent(tmp_path, host="vmhost2")
    assert ([run.invocation for run in copy.pending()], copy.lost()) == (["i1"], [])


def test_marks_are_forgotten_after_a_week(tmp_path: Path) -> None:
    runs = agent(tmp_path)
    over(runs, killed("i1"))
    runs.told(runs.pending())
    mark = tmp_path / "told/runtime/i1"
    late = mark.stat().st_mtime + spool.KEPT + 1
    for now, is_there in [(late - spool.HOUR, True), (late - 1, True), (late + spool.HOUR, False)]:
        runs.forget(now)  # once an hour, and the clock may have been set back
        assert mark.exists() == is_there, now


def test_a_file_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    agent(tmp_path).began(UUID, running("i1"))
    for name, text in {"bad": "{", "list": "[]", "short": "{}"}.items():
        (tmp_path / f"runs/{name}.json").write_text(text)
    assert [run.invocation for run in agent(tmp_path).pending()] == ["i1"]


def test_what_a_power_failure_ended(tmp_path: Path) -> None:
    """Once: an agent that comes later finds nothing."""
    agent(tmp_path, OLD).began(UUID, running("i1"))
    (tmp_path / "awake" / OLD.replace("-", "")).write_text("4000.0")
    runs = agent(tmp_path)
    (end,) = runs.lost()
    assert (end.by, end.started, end.ended, end.boot_id) == ("host", 1000.0, 4000.0, OLD)
    over(runs, end)
    runs.lost_are_told()
    assert runs.lost() == []
    (run,) = runs.pending()
    assert (run.estimated, run.event, run.stopped) == (True, "killed", 4_000_000)
    assert agent(tmp_path).lost() == []


def test_an_end_that_a_recorder_wrote_before_a_power_failure_is_told_once(tmp_path: Path) -> None:
    agent(tmp_path, OLD).began(UUID, running("i1"))
    left = [killed("i1", started=1100.0, time=1100.0), killed("i2", started=1101.0, time=1150.0)]
    runs = agent(tmp_path, last_entry=(OLD.replace("-", ""), 4500.0), left=left)
    over(runs, killed("i2", started=1101.0))
    assert [(end.invocation, end.ended) for end in runs.lost()] == [("i1", 1100.0)]


def test_an_end_before_there_was_a_qemu_makes_no_run_and_is_told_once(tmp_path: Path) -> None:
    """A host was shut down while a VM was being set up, and then seemed to have lost power while it ran."""
    runs = agent(tmp_path, OLD)
    over(runs, End(UUID, "i1", "shutdown", result="success", ended=1100.0))
    assert (runs.pending(), runs.is_over("i1")) == ([], True)
    left = [End(UUID, "i1", "host", started=1099.0)]
    assert agent(tmp_path, last_entry=(OLD.replace("-", ""), 4500.0), left=left).lost() == []


def test_an_earlier_boot_is_not_forgotten_before_it_was_asked_about(tmp_path: Path) -> None:
    """Its only run was closed, and what began after that nobody saw."""
    agent(tmp_path, OLD).lost_are_told()
    left = [killed("i2", started=1101.0, time=1150.0)]
    runs = agent(tmp_path, last_entry=(OLD.replace("-", ""), 4500.0), left=left)
    runs.stay_awake()
    assert [end.invocation for end in runs.lost()] == ["i2"]
