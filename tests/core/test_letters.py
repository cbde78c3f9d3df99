"""What the next mail tells, and when."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from freezegun import freeze_time

from uncloud_host import letters
from uncloud_host.events import Event, Name, Spooled
from uncloud_host.letters import ALONG, PAIR, SETTLE, WINDOW, Sent

NOW = 1_790_000_000.0
WEB, DB = "5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11", "7a1dd0a5-5e12-4a0e-9d3b-0c5b2f6a4e01"


def event(name: str, ago: float = 0.0, vm: str = WEB, *, quiet: bool = False) -> Spooled:
    """One that was recorded so many seconds before NOW."""
    at = NOW - ago
    told = Event(vm, Name(name), f"{name} {ago}", datetime.fromtimestamp(at, UTC), "vmhost1", f"name-{vm[:4]}", "why")
    return Spooled(int(at * 1e9), told, quiet)


def vm(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def mailed(*names: str, ago: float = 60.0, about: str = WEB) -> Sent:
    return Sent(NOW - ago, tuple((about, name) for name in names))


def chosen(waiting: Sequence[Spooled], *sent: Sent) -> list[str] | float | None:
    found = letters.choose(sorted(waiting, key=lambda each: each.ns), sent, NOW)
    if isinstance(found, Sequence):
        return [f"{each.event.event}{' (quiet)' * each.quiet}" for each in found]
    return found if found is None else round(found - NOW, 3)


FLAPPING = [mailed("killed", "restarted", ago=ago) for ago in (300, 200, 100, 50)]
CASES = {
    "nothing waits": ([], [], None),
    "a start": ([event("started")], [], ["started"]),
    "an end waits for the beginning": ([event("killed", 0.2)], [], PAIR - 0.2),
    "an end and its beginning": ([event("killed", 1.1), event("restarted")], [], ["killed", "restarted"]),
    "an end without a beginning": ([event("killed", PAIR)], [], ["killed"]),
    "a beginning before the end is not the one": ([event("started", 1), event("killed", 0.5)], [], PAIR - 0.5),
    "an end and that systemd gave up": ([event("crashed", 0.1), event("gave-up")], [], ["crashed", "gave-up"]),
    "the end waits for the beginning of its own VM": (
        [event("killed", 0.5), event("restarted", 0.1, DB)], [], ["restarted"]),
    "a repetition rides along": (
        [event("could-not-start", 99, quiet=True), event("resolved")], [], ["could-not-start (quiet)", "resolved"]),
    "a repetition waits": ([event("could-not-start", 99, quiet=True)], [], ALONG - 99),
    "a repetition is no mail of another VM": (
        [event("could-not-start", 99, quiet=True), event("started", 0, DB)], [], ["started"]),
    "a repetition that waited for an hour": (
        [event("could-not-start", ALONG, quiet=True)], [], ["could-not-start (quiet)"]),
    "the fifth mail waits": ([event("killed", 3)], FLAPPING, WINDOW - 50),
    "the fifth mail of another VM does not": ([event("killed", 3, DB)], FLAPPING, ["killed"]),
    "what is collected is one mail": (
        [event("killed", 600), event("restarted", 599), event("killed", 300), event("restarted", 299)],
        [mailed("killed", ago=601)], ["killed", "restarted", "killed", "restarted"]),
    "after many ends in one mail the next waits": (
        [event("killed", 3)], [mailed(*["killed", "restarted"] * 12, ago=100)], WINDOW - 100),
    "that systemd gave up does not wait": ([event("gave-up", 3)], FLAPPING, ["gave-up"]),
    "that it is over does not wait": ([event("resolved", 3)], FLAPPING, ["resolved"]),
    "a trouble of a new kind does not wait": ([event("disk-error", 3)], FLAPPING, ["disk-error"]),
    "a trouble told a minute ago waits": (
        [event("disk-error", 3)], [*FLAPPING, mailed("disk-error", ago=60)], WINDOW - 50),
    "old mails do not count": ([event("killed", 3)], [mailed("killed", ago=601)] * 9, ["killed"]),
    "what is held is one mail": (
        [event("held", 1, vm(n)) for n in range(9)] + [event("started", 0, DB)], [], ["held"] * 9),
    "five mails are five mails": ([event("started", n, vm(n)) for n in range(5)], [], ["started"]),
    "six are one": ([event("started", 3 + n / 10, vm(n)) for n in range(6)], [], ["started"] * 6),
    "a burst settles": ([event("killed", n / 10, vm(n)) for n in range(9)], [], round(PAIR, 3)),
    "not for long": ([event("killed", SETTLE, vm(n)) for n in range(9)], [], ["killed"] * 9),
    "a burst does not take what is held back": (
        [event("killed", 3), *(event("started", 3, vm(n)) for n in range(6))], FLAPPING, ["started"] * 6),
    "a clock that was set back": ([event("killed", -7200)], [*[mailed("killed", ago=-7000)] * 9], ["killed"]),
    "after many mails in a minute there is a pause": (
        [event("started", 0, DB)], [mailed("started", ago=5, about=vm(n)) for n in range(25)], letters.PAUSE - 5),
    "and then one digest": (
        [event("started", 9, vm(n)) for n in range(3)],
        [mailed("started", ago=30, about=vm(n)) for n in range(9, 40)], ["started"] * 3),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_next_mail(case: str) -> None:
    waiting, sent, expected = CASES[case]
    assert chosen(waiting, *sent) == expected


def test_no_event_of_a_flapping_vm_is_lost_and_few_are_mails() -> None:
    """It ends every 20 s for an hour, and says why."""
    waiting: list[Spooled] = []
    sent: list[Sent] = []
    told: list[str] = []
    with freeze_time(datetime.fromtimestamp(NOW, UTC), tz_offset=0) as clock:
        for second in range(7200):
            now = NOW + second
            clock.move_to(datetime.fromtimestamp(now, UTC))
            if second < 3600 and second % 20 < 2:
                name = "restarted" if second % 20 else "killed"
                waiting.append(Spooled(int(now * 1e9), event(name, -second).event))
            while isinstance(found := letters.choose(waiting, sent, now), Sequence):
                sent.append(Sent(now, tuple((each.event.vm, each.event.event) for each in found)))
                told += [each.event.id for each in found]
                waiting = [each for each in waiting if each not in found]
    assert len(told) == len(set(told)) == 360
    assert len(sent) <= 4 + 6 + 1
    assert waiting == []
