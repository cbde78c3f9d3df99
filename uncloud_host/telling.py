"""Turn what happened to VMs into events, each once, and say what is done to them in the journal."""

import logging
import time
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from uncloud_host import journal, keeping, spool
from uncloud_host.channels import Channel
from uncloud_host.counts import Counts
from uncloud_host.endings import End, conclude, ended, has_run
from uncloud_host.events import Event, Name, clean, stamp
from uncloud_host.facts import Observed
from uncloud_host.models import VM
from uncloud_host.runs import Runs
from uncloud_host.saying import say
from uncloud_host.signs import Kind, Sign, lately, signs
from uncloud_host.spool import Spool
from uncloud_host.troubles import Troubles
from uncloud_host.unit import State

logger = logging.getLogger(__name__)

SELDOM = 600.0  # seconds: a guest whose watchdog barks all day pushes no record of another VM out
ONCE = 2.0  # seconds: SeaBIOS resets once more when it sees that it was a reset
RUNS = 16  # of a VM are remembered; more do not end between two passes


@dataclass(slots=True)
class _Story:
    """What has been told of one VM lately."""

    name: str
    asked: str = ""  # why a start was asked for
    said: str = ""
    rebooted: float = 0.0  # when its guest last did
    begun: str = ""  # the invocation whose beginning has been told
    ended: dict[tuple[str, bool], End] = field(default_factory=dict)  # by invocation and `is_after`


class Teller:
    """Makes events, each once, and wakes the channels that pass them on."""

    def __init__(self, kept: Spool, troubles: Troubles, runs: Runs, host: str, channels: Sequence[Channel]) -> None:
        self._spool, self._runs = kept, runs
        self._troubles = troubles
        self._born = time.time()
        self._host = host
        self._channels = channels
        self._stories: dict[str, _Story] = {}
        self._unkept: dict[str, Event] = {}  # by id: the disk is full
        self._has_held = False
        self.counts = Counts()

    def tell(self, event: Event) -> None:
        """Keep an event and say it in the journal, if nobody has yet."""
        is_first = not self._unkept
        self._unkept[event.id] = event
        try:
            self._keep()
        except OSError as error:
            if is_first:
                logger.warning("events cannot be kept on disk (%s); they are kept in memory meanwhile", error)

    def _keep(self) -> None:
        """Keep on disk what is not yet there, in the order in which it happened. Raises OSError."""
        for event in list(self._unkept.values()):
            is_new = keeping.keep(event, self._spool, self._troubles)
            del self._unkept[event.id]
            if is_new:
                self._new(event)

    def _new(self, event: Event) -> None:
        self.counts.told(event)
        self._has_held |= event.event == Name.HELD
        if event.event != Name.HELD:  # a hundred VMs are held in one pass, and that is one mail
            self.pass_on()

    def resolved(self, kind: str, uuid: str, reason: str) -> None:
        """Tell that what lasted is over; nothing if nobody has told that it began."""
        with suppress(OSError):
            if trouble := self._troubles.find(kind, uuid):
                self.tell(keeping.resolved(trouble, self._host, self._name(uuid), reason))
                self._troubles.end(kind, uuid)

    def seen(self, uuid: str, invocation: str, said: Sequence[Sign]) -> None:
        """Tell what QEMU said while it ran; of what an earlier agent may have read only what makes an event."""
        for sign in lately(said, time.time(), spool.FRESH):
            at = datetime.fromtimestamp(sign.time, UTC)
            subject = f"{invocation} {stamp(at)}"
            event = partial(Event, uuid, subject=subject, time=at, host=self._host, name=self._name(uuid))
            match sign.kind:
                case Kind.REBOOT if sign.time >= max(self._born, self._story(uuid).rebooted + ONCE):
                    self._story(uuid).rebooted = sign.time
                    self.say(uuid, sign.text)
                case Kind.WATCHDOG:  # the same event for all within these minutes, also for the next agent
                    subject = f"{invocation} {sign.time // SELDOM:.0f}"
                    self.tell(event(Name.WATCHDOG, subject=subject, reason=sign.text, invocation=invocation))
                case Kind.DISK_ERROR if not self._troubles.is_open("disk", uuid):  # requests fail by the dozen
                    self.tell(event(Name.DISK_ERROR, reason=sign.text, invocation=invocation))
                case Kind.GOES_ON:
                    self.resolved("disk", uuid, sign.text)

    def end_pass(self) -> None:
        """Pass on what is told together, and try again to keep what could not be kept."""
        with suppress(OSError):
            self._keep()
        if self._has_held:
            self._has_held = False
            self.pass_on()

    def pass_on(self) -> None:
        """Let the channels look; other programs leave events in the spool, too."""
        for channel in self._channels:
            channel.look()

    def say(self, uuid: str, text: str) -> None:
        """Say in the journal what is done to a VM and why."""
        self._story(uuid).said = text
        say(uuid, clean(text))

    def say_once(self, uuid: str, text: str) -> None:
        """Say why nothing is done to a VM, unless that was the last thing said of it."""
        if self._story(uuid).said != text:
            self.say(uuid, text)

    def about(self, uuid: str, event: Name, subject: str, reason: str, invocation: str = "") -> None:
        """Tell an event that happens now."""
        last = self._story(uuid).ended.get((invocation, False))
        if event == Name.GAVE_UP and last:
            reason = f"{reason.partition(';')[0]}, at last {conclude(last)[1]}"
        self.tell(Event(uuid, event, subject, datetime.now(UTC), self._host, self._name(uuid), reason, invocation))

    def about_host(self, event: Name, subject: str, reason: str) -> None:
        """Tell an event about the host itself."""
        self.tell(Event("", event, subject, datetime.now(UTC), self._host, "", reason))

    def named(self, uuid: str, name: str) -> None:
        """Remember a name: it is wanted when entry and unit may be gone."""
        self._story(uuid).name = name

    def will_start(self, vm: VM, reason: str) -> None:
        """Remember why a start was asked for, to be told when it has happened."""
        self._story(vm.uuid).asked = reason

    def began(self, uuid: str, new: Observed) -> None:
        """Tell the beginning of a run, once."""
        if new.evidence is not None and new.state == State.RUNNING:
            self.named(uuid, new.evidence.name)
            self._begin(uuid, new.invocation, new.since, new.restarts)
            self._runs.began(uuid, new)

    def over(self, end: End) -> End:
        """Tell how a run ended, once; return the end with what QEMU said about it."""
        story = self._story(end.vm)
        if story.name == end.vm:
            story.name = self._runs.name(end.invocation) or end.vm
        key = (end.invocation, end.is_after)
        if key in story.ended:
            return story.ended[key]
        self.seen(end.vm, end.invocation, signs(end.signs))
        event = ended(end, self._host, story.name)
        if event.event in (Name.COULD_NOT_START, Name.CRASHED) or end.shutdown == "host-signal":
            end = replace(end, said=journal.last_words(end, event.event))
            event = ended(end, self._host, story.name)
        if has_run(end):
            self._begin(end.vm, end.invocation, end.started, end.restarts)  # while nobody looked
        story.ended = dict([*story.ended.items(), (key, end)][-RUNS:])
        self.tell(event)
        if not end.is_after:  # at once: the next run may have the same trouble before anybody looks
            self.resolved("disk", end.vm, "that run is over")
        self._runs.over(end, event)  # last: an open run has an end that may not have been told
        return end

    def went_down(self) -> None:
        """Tell the ends of runs that nobody saw end, because this host went down with them."""
        for end in self._runs.lost():
            self.over(end)
        self._runs.lost_are_told()

    def is_told(self, uuid: str, invocation: str) -> bool:
        """Tell whether the end of a run has been told."""
        return (invocation, False) in self._story(uuid).ended or self._runs.is_over(invocation)

    def forget(self, others_than: Container[str]) -> None:
        """Forget VMs that are gone."""
        self._stories = {uuid: story for uuid, story in self._stories.items() if uuid in others_than}
        self.counts.forget(others_than)

    def _begin(self, uuid: str, invocation: str, since: float, restarts: int) -> None:
        story = self._story(uuid)
        if story.begun == invocation:
            return
        asked, story.asked, story.begun = story.asked, "", invocation
        self.counts.began(uuid, since)
        if since < time.time() - spool.FRESH:
            return
        event = Name.RESTARTED if restarts else Name.STARTED
        reason = f"by systemd, restart {restarts}" if restarts else asked or "it runs"
        begun = datetime.fromtimestamp(since, UTC)
        self.tell(Event(uuid, event, invocation, begun, self._host, story.name, reason, invocation))

    def _story(self, uuid: str) -> _Story:
        return self._stories.setdefault(uuid, _Story(uuid))

    def _name(self, uuid: str) -> str:
        return self._story(uuid).name
