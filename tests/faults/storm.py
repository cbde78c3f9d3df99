"""A cluster on which users and weather go on at the same time, and what must be so afterwards."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock

from faults import boots, clients, of_ceph, of_etcd, of_hosts, of_vms, weather
from faults.again import Again
from faults.clients import User, Wish, wishes
from faults.history import History
from faults.tally import Tally, usage
from faults.truth import Truth, complaints, look, not_mailed
from faults.weather import Cause, Sky, Weather
from lab import Ceph
from lab.ceph import USER
from system.cluster import Cluster
from system.witness import Run
from system.world import World
from waiting import eventually

POSTBOX = Path(__file__).parents[1] / "system/postbox.py"
USERS, VMS = 3, 4  # VMs of each user
SETTLED = 60  # seconds after the last fault
DEAF = 90  # seconds: Ceph keeps a lock for a client that died without a word until it has forgotten it
MOMENT = 0.5  # seconds
MAILED = 180  # seconds: the pauses between two tries to send a mail grow
BRIDGE = """[Unit]
Before=uncloud-host.service
[Service]
Type=oneshot
ExecStart=/usr/sbin/ip link add br0 type bridge
ExecStart=/usr/sbin/ip link set br0 up
[Install]
WantedBy=multi-user.target
"""
SMTP = """[Unit]
Before=uncloud-host.service
[Service]
ExecStart=/usr/bin/python3 /root/postbox.py 25
[Install]
WantedBy=multi-user.target
"""
# The delay would grow to a minute, and all is to be well within that.
SOON = "[Service]\nRestartSec=100ms\nRestartSteps=0\n"


class Storm:
    """Storms on one cluster, one after the other; each begins when all has been found to be well."""

    def __init__(self, cluster: Cluster, ceph: Ceph) -> None:
        self.cluster, self.ceph = cluster, ceph
        self.causes: list[Cause] = []
        self.history = History(cluster)
        self.users: list[User] = []
        self.wishes: list[Wish] = []
        self.tally = Tally()
        self.since = self._began = datetime.now(UTC)  # when etcd's history began; when the last storm did
        self._boots: set[tuple[str, str, int]] = set()  # that guests told
        self._explained: set[str] = set()  # invocations, when etcd's history was still that of their time
        self._unheard: set[str] = set()  # invocations of which journald may have dropped what their guests said
        self._power = {world.name: RLock() for world in cluster.worlds}

    def rage(self, seed: int, seconds: float) -> None:
        """Let users ask and weather rage for some time, all chosen by the seed; heal everything."""
        if not self.wishes:
            self.wishes = wishes(self.cluster, self.ceph, USERS * VMS, seed)
        for wish in self.wishes:
            wish.was_repeated = False
        self.users = users = [User(self.cluster, self.wishes[n::USERS], seed + n) for n in range(USERS)]
        sky = Sky(self.cluster, self.ceph, users, self.causes, self.history, self._power)
        self.sky = sky
        weathers = [
            Weather("etcd", sky, of_etcd.KINDS, seed),
            Weather("ceph", sky, of_ceph.KINDS, seed),
            Weather("hosts", sky, of_hosts.KINDS, seed),
            Weather("vms", sky, of_vms.KINDS, seed),
            Weather("mail", sky, of_vms.MAIL, seed),
        ]
        self.weathers = weathers
        threads = [Again(f"user {number}", user.act, clients.PAUSES, seed) for number, user in enumerate(users)]
        threads += [Again(one.name, one.act, weather.PAUSES, seed) for one in weathers]
        began, self._began = time.monotonic(), datetime.now(UTC)
        for thread in threads:
            thread.start()
        eventually(
            lambda: time.monotonic() > began + seconds or any(thread.is_over for thread in threads),
            within=seconds + 10, every=0.2,
        )  # fmt: skip
        for thread in threads:
            thread.end()
        for thread in threads:
            thread.join()
        self.tally.seconds += time.monotonic() - began
        self.tally.storms += 1
        if failed := [thread.failed for thread in threads if thread.failed]:
            raise ExceptionGroup("the storm itself", failed)
        for one in weathers:
            self.tally.faults += one.done
        for user in users:
            self.tally.operations += user.done

    def wait_settled(self, within: float = SETTLED) -> None:
        """Until all is as was asked, and then say what was wrong on the way."""
        began = time.monotonic()
        wrong: list[str] = []

        def is_settled() -> bool:
            truth = look(self.cluster)
            for user in self.users:
                user.insist(truth.entries, self.sky.excused)
            self._confirm(truth)
            wrong[:] = complaints(truth, self.wishes, self.since, self._unknowable(truth.runs))
            wrong.extend(self._not_restarted(truth.runs))
            return not wrong

        eventually(is_settled, within=within, every=0.5, what=lambda: self.report(wrong))
        self.tally.settled += [time.monotonic() - began] if within == SETTLED else []
        eventually(lambda: not self._deaf(), within=DEAF, every=1, what=lambda: self.report(self._deaf()))
        self.tally.usages.append(usage(self.cluster.worlds[0]))
        of_etcd.mark(self.sky)  # the agents may have acted on what our own watch has yet to hear
        wrong = self.wrongs() + self._not_restarted(self.cluster.witness.runs()) + self.tally.too_much()
        assert not wrong, self.report(wrong)
        eventually(lambda: not not_mailed(look(self.cluster)), within=MAILED, every=1,
                   what=lambda: self.report(not_mailed(look(self.cluster))))  # fmt: skip
        self.tally.seen(look(self.cluster), self.history.seen, len(self._boots))

    def begin_again(self) -> None:
        """Etcd's history is another one now: nothing of what was told before need be in it."""
        self.history.begin_again()
        self.since = datetime.now(UTC)
        for wish in self.wishes:
            wish.was_repeated = True

    def wrongs(self) -> list[str]:
        """What cannot be put right: doubles, ends that nobody caused, writes that were lost, programs that failed."""
        found = self.cluster.witness.doubles()
        over = [run for run in self.cluster.witness.runs() if run.gone and run.invocation not in self._explained]
        found += [f"nobody ended it: {run}" for run in over if not self._is_explained(run)]
        self._explained |= {run.invocation for run in over}
        told = boots.told(self.cluster, self.wishes, self._began)
        self._boots |= told.keys()
        found += self.history.wrongs(self.wishes) + boots.twice(told)
        return found + [line for world in self.cluster.worlds for line in self._failures(world)]

    def _failures(self, world: World) -> list[str]:
        found = failures(world, self._began)
        return [line for line in found if "status=6/ABRT" not in line or world.name not in self.sky.starved]

    def _deaf(self) -> list[str]:
        mute = boots.mute(self.cluster)
        self._unheard |= {run.invocation for run in mute if run.uuid in self.sky.flooded}
        return [f"has not booted: {run}" for run in mute if run.invocation not in self._unheard]

    def _unknowable(self, runs: Sequence[Run]) -> set[str]:
        """List runs that began when their host was about to lose its power: no disk, no journal knows of them."""
        short = [run for run in runs if run.gone and run.last - run.first < MOMENT]
        return {run.invocation for run in short if any(cause.host and cause.explains(run) for cause in self.causes)}

    def _not_restarted(self, runs: Sequence[Run]) -> list[str]:
        """List VMs that run on although their users asked for a restart, and for nothing since."""
        last = {wish.uuid: wish.texts[-1] for wish in self.wishes if wish.asked == "on"}
        asked = {uuid: self.history.revision_of(text) for uuid, text in last.items() if "TO_RESTART" in text}
        return [
            f"not restarted: {run}" for run in runs
            if run.gone is None and (run.revision if run.first > self.history.since else 0) < asked.get(run.uuid, 0)
        ]  # fmt: skip

    def _is_explained(self, run: Run) -> bool:
        same = [
            one for one in self.cluster.witness.runs(run.uuid) if (one.host, one.revision) == (run.host, run.revision)
        ]
        first, since = min(one.first for one in same), self.history.since
        asked = self.history.asked(run, first)
        wish = next((wish for wish in self.wishes if wish.uuid == run.uuid), None)
        if wish and run.gone:
            by = self.history.value(run.uuid, run.revision) if first > since else ""  # else of another history
            began = wish.when(by) if by else since
            asked = [one for one in asked if wish.was_asked(one.value, after=began, before=run.gone)]
        if asked or any(cause.explains(run) for cause in self.causes):
            return True
        return wish is not None and bool(wish.image) and gave_up(self.cluster, run)

    def report(self, wrong: list[str]) -> str:
        """For the reader of a failed test."""
        uuids = {wish.uuid for wish in self.wishes if any(wish.uuid in line for line in wrong)}
        lines = [*wrong[:20], "", *(line for one in self.weathers for line in one.log)]
        for uuid in sorted(uuids)[:3]:
            lines += ["", *(str(change) for change in self.history.changes if change.uuid == uuid)]
            lines.append(self.cluster.told(uuid))
        return "\n".join(lines)

    def _confirm(self, truth: Truth) -> None:
        """What agents hold because so much was deleted at once was meant: say so, as an administrator does."""
        for wish in self.wishes:
            claim = truth.claims.get(wish.uuid, {})
            if claim.get("held") and wish.asked == "gone":
                world = next(world for world in self.cluster.worlds if world.name == claim["host"])
                world.host.run("uncloud-host", "confirm", wish.uuid, check=False)


@contextmanager
def stormy(cluster: Cluster, ceph: Ceph) -> Iterator[Storm]:
    """Prepare the hosts of a cluster for what is to come."""
    for world in cluster.worlds:
        world.host.push(ceph.conf(), "/etc/ceph/ceph.conf")
        world.host.push(ceph.keyring(), f"/etc/ceph/ceph.client.{USER}.keyring", 0o600)
        world.host.push(BRIDGE, "/etc/systemd/system/bridge.service")
        world.host.push(SMTP, "/etc/systemd/system/lab-smtp-again.service")
        world.host.push(POSTBOX, "/root/postbox.py")
        world.host.push(SOON, "/etc/systemd/system/uncloud-host.service.d/soon.conf")
        world.shell("systemctl stop lab-smtp; mv /etc/systemd/system/lab-smtp-again.service"
                    " /etc/systemd/system/lab-smtp.service; systemctl daemon-reload;"
                    " systemctl enable --quiet --now bridge lab-smtp")  # fmt: skip
        world.hurry("letters.WINDOW = 20.0")  # seconds: all these VMs end again and again
        world.wait_ready()
    storm = Storm(cluster, ceph)
    with storm.history:
        yield storm


def gave_up(cluster: Cluster, run: Run) -> bool:
    """Whether QEMU itself ended a run, as it does if Ceph's monitors do not answer for ten seconds."""
    world = next(world for world in cluster.worlds if world.name == run.host)
    words = ["--grep=error connecting: Connection timed out", f"_SYSTEMD_INVOCATION_ID={run.invocation}"]
    return bool(world.host.run("journalctl", "--quiet", "--lines=1", *words, check=False).stdout)


def failures(world: World, since: datetime) -> list[str]:
    """Ends of the agent that it chose itself, and programs of ours that showed a traceback."""
    words = ["journalctl", "--no-pager", "-o", "short-precise", f"--since=@{since.timestamp():.0f}"]
    lines = world.host.run(*words, "--grep=Traceback|uncloud-host.service: Main process exited", check=False).stdout
    return [
        f"{world.name}: {line}" for line in lines.splitlines()
        if "Traceback" in line or ("Main process exited" in line and "status=9/KILL" not in line)
    ]  # fmt: skip
