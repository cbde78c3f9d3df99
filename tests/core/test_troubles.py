"""What lasts is begun once and ended once, whoever looks."""

from dataclasses import replace
from pathlib import Path

from uncloud_host.troubles import Trouble, Troubles

DOWN = Trouble(
    "down", "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "2026-11-23T08:00:00.000Z", "gave-up", "it ended 15 times"
)


def test_it_is_begun_once_and_ended_once(tmp_path: Path) -> None:
    agent, audit = Troubles(tmp_path), Troubles(tmp_path)
    assert agent.begin(DOWN)
    assert not audit.begin(DOWN)
    assert audit.all() == [DOWN]
    assert audit.find(DOWN.kind, DOWN.about) == DOWN
    audit.end(DOWN.kind, DOWN.about)
    agent.end(DOWN.kind, DOWN.about)
    assert agent.find(DOWN.kind, DOWN.about) is None
    assert agent.all() == []


def test_any_text_names_one(tmp_path: Path) -> None:
    troubles = Troubles(tmp_path)
    for about in ("", "../../etc/passwd", "a b", ".", "x" * 1000):
        assert troubles.begin(Trouble("foreign", about, "", "foreign", ""))
    assert len(troubles.all()) == 5


def test_a_damaged_one_can_be_ended(tmp_path: Path) -> None:
    troubles = Troubles(tmp_path)
    (tmp_path / "open" / "held.x").write_text("{")
    assert troubles.all() == []
    assert troubles.find("held", "x") is not None
    troubles.end("held", "x")
    assert troubles.find("held", "x") is None


def test_one_that_a_power_failure_left_empty_is_begun_again(tmp_path: Path) -> None:
    troubles = Troubles(tmp_path)
    (tmp_path / "open" / f"{DOWN.kind}.{DOWN.about}").touch()
    assert not troubles.is_open(DOWN.kind, DOWN.about)
    assert troubles.begin(DOWN)
    assert troubles.is_open(DOWN.kind, DOWN.about)
    assert troubles.all() == [DOWN]


def test_that_systemd_gave_up_is_news_of_what_is_down_and_nothing_else_is(tmp_path: Path) -> None:
    troubles = Troubles(tmp_path)
    first = replace(DOWN, event="could-not-start", id="a")
    assert troubles.begin(first)
    assert troubles.begin(first)  # the same event: whoever began it died before it was kept
    assert not troubles.begin(replace(first, id="b"))
    assert troubles.begin(replace(DOWN, since="later", id="c"))
    assert [(trouble.event, trouble.since) for trouble in troubles.all()] == [("gave-up", DOWN.since)]
    assert not troubles.begin(replace(DOWN, id="d"))
    assert not troubles.begin(replace(first, id="e"))
