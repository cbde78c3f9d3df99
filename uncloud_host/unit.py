"""A VM as a systemd unit: its properties, its name, the evidence that it carries, and the words for its state. Pure.

Everything that a restart needs is in the unit, so that systemd restarts a VM alone: with the agent dead, with etcd
away, in the middle of an upgrade. Traps that shaped the properties are told beside them; systemd is 257.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from uncloud_host import drives, limits, names, qemu, sandbox
from uncloud_host.devices import Nic
from uncloud_host.models import VM, is_uuid

SLICE = "uncloud-vm.slice"
PROGRAMS = "/usr/libexec/uncloud-host"  # an interface: units of an older version call what a newer package installs
PREFIX, SUFFIX = "vm-", ".service"
SECOND = 1_000_000  # systemd counts in microseconds

Value = sandbox.Value


class State(StrEnum):
    """What a unit is doing, in the few words that decisions need."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"  # the guest powered itself off and the unit remembers it (RemainAfterExit=)
    STOPPING = "stopping"
    RESTARTING = "restarting"  # ended, systemd waits before it starts it again
    FAILED = "failed"  # systemd gave up


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was started, written into the unit itself: the agent needs no memory of its own."""

    host: str
    claim: str
    mod_revision: int  # of the entry
    fingerprint: str
    name: str  # of the VM, for telling people when the entry is gone
    vnc: str  # "ADDRESS:PORT" or nothing
    limits: str = ""  # the fingerprint of those that it was started with


@dataclass(frozen=True, slots=True)
class Service:
    """A unit that is no VM's, in systemd's words: the agent's."""

    active: str  # ActiveState
    result: str  # Result
    since: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Settings:
    """What the host decides about every unit. Times in seconds."""

    restart_limit: int = 15
    stop_timeout: int = 120


def name(uuid: str) -> str:
    """Name the unit of a VM."""
    return f"{PREFIX}{uuid}{SUFFIX}"


def uuid_of(unit: str) -> str | None:
    """Tell whose unit this is; None for units that only look like ours."""
    uuid = unit.removeprefix(PREFIX).removesuffix(SUFFIX)
    return uuid if name(uuid) == unit and is_uuid(uuid) else None


def state(active: str, sub: str) -> State:
    """Translate ActiveState and SubState. SubState is an open set: 257 has failed-before-auto-restart and more."""
    match active, sub:
        case "active", "exited":
            return State.EXITED
        case (("active" | "reloading" | "refreshing"), _):
            return State.RUNNING
        case "failed", "failed":
            return State.FAILED
        case "deactivating", _:
            return State.STOPPING
        case "activating", sub if not sub.startswith("auto-restart"):
            return State.STARTING
        case (("activating" | "failed"), _):
            return State.RESTARTING
    return State.ABSENT


def environment(evidence: Evidence) -> list[str]:
    """Write the evidence as the unit's Environment=, which can be read back over D-Bus and in `systemctl cat`."""
    return [
        f"UNCLOUD_HOST={evidence.host}",
        f"UNCLOUD_CLAIM={evidence.claim}",
        f"UNCLOUD_REVISION={evidence.mod_revision}",
        f"UNCLOUD_FINGERPRINT={evidence.fingerprint}",
        f"UNCLOUD_NAME={evidence.name}",
        f"UNCLOUD_VNC={evidence.vnc}",
        f"UNCLOUD_LIMITS={evidence.limits}",
    ]


def evidence(lines: Sequence[str]) -> Evidence | None:
    """Read the evidence back; None means a foreign unit, which is never stopped and never replaced."""
    found = dict(line.partition("=")[::2] for line in lines)
    try:
        return Evidence(
            host=found["UNCLOUD_HOST"],
            claim=found["UNCLOUD_CLAIM"],
            mod_revision=int(found["UNCLOUD_REVISION"]),
            fingerprint=found["UNCLOUD_FINGERPRINT"],
            name=found["UNCLOUD_NAME"],
            vnc=found.get("UNCLOUD_VNC", ""),
            limits=found.get("UNCLOUD_LIMITS", ""),
        )
    except (KeyError, ValueError):
        return None


def properties(vm: VM, choices: qemu.Choices, settings: Settings, marker: Evidence) -> list[tuple[str, Value]]:
    """Build all properties of the unit, in the order in which systemd must get them."""
    return [
        ("Description", f"VM {vm.name}"),
        ("Type", "exec"),
        ("Slice", SLICE),
        *_order(),
        *_commands(vm, choices, settings),
        *_restarts(vm, settings),
        ("Environment", environment(marker)),
        *_streams(vm),
        *_user(vm, choices),
        *sandbox.properties(vm, choices),
        ("CPUAccounting", True),
        ("MemoryAccounting", True),
        ("IOAccounting", True),
        *limits.said(vm, choices.accel),
    ]


def _order() -> list[tuple[str, Value]]:
    """Order VMs against targets only: ordered after a service, a crashed VM's restart would wait for that service; and
    ordered before ours, an agent's restart would wait for every VM that is stopping."""
    return [
        ("After", ["network-online.target", "remote-fs.target"]),
        ("Before", ["uncloud-vms.target"]),
        # Else `systemctl isolate multi-user.target` stops all VMs, each looking like an operator's stop.
        ("IgnoreOnIsolate", True),
    ]


def _commands(vm: VM, choices: qemu.Choices, settings: Settings) -> list[tuple[str, Value]]:
    argv = command(vm, choices)
    taps = [_tap(vm.uuid, index, nic) for index, nic in enumerate(vm.entry.nics)]
    directory = names.runtime_directory(vm.uuid)
    wait = vm.entry.stop_timeout or settings.stop_timeout
    prepare = _command("prepare", directory, *taps, flags=["privileged"])
    powerdown = _command("powerdown", f"{directory}/stop.sock", str(wait), flags=["ignore-failure"])
    record = _command("record", vm.uuid, *taps, flags=["privileged", "ignore-failure"])
    listed: list[tuple[str, Value]] = [("ExecStart", [[argv[0], argv, False]])]
    if taps:  # each program costs a start 7 to 12 ms: VMs without nics have none
        listed.append(("ExecStartPreEx", [prepare]))
    return [
        *listed,
        ("ExecStopEx", [powerdown]),
        ("ExecStopPostEx", [record]),
        ("WorkingDirectory", f"-{directory}"),  # "-": the recorder must work also if it could not be made
        ("KillMode", "mixed"),
        ("TimeoutStartUSec", 60 * SECOND),
        # Counts for powerdown and again from SIGTERM to SIGKILL; powerdown must end by itself before.
        ("TimeoutStopUSec", (wait + 10) * SECOND),
    ]


def command(vm: VM, choices: qemu.Choices) -> list[str]:
    """Build what ExecStart= runs: QEMU, in rare cases by way of a program that makes descriptors what QEMU expects."""
    uncached = ",".join(map(str, drives.direct(vm)))
    return ([f"{PROGRAMS}/direct", uncached] if uncached else []) + qemu.argv(vm, choices)


def _tap(uuid: str, index: int, nic: Nic) -> str:
    return f"{names.tap(uuid, index)}={nic.bridge}" + (f",vlan={nic.vlan}" if nic.vlan else "")


def _command(program: str, *words: str, flags: Sequence[str]) -> Value:
    argv = [f"{PROGRAMS}/{program}", *words]
    return [argv[0], argv, flags]


def _restarts(vm: VM, settings: Settings) -> list[tuple[str, Value]]:
    """Restart after 1, 2, 4, 8, 17, 35, 72, 147, 300, 300 ... seconds until the limit of starts in an hour."""
    return [
        ("Restart", vm.entry.restart),
        # With Restart=always it would keep a guest's poweroff from being restarted; without, it keeps it visible.
        ("RemainAfterExit", vm.entry.restart != "always"),
        ("RestartMode", "direct"),
        ("RestartUSec", 1 * SECOND),
        ("RestartSteps", 8),
        ("RestartMaxDelayUSec", 300 * SECOND),
        ("StartLimitIntervalUSec", 3600 * SECOND),
        ("StartLimitBurst", settings.restart_limit),
        # With RestartMode=direct only when systemd gives up. Over D-Bus no specifier is expanded: the name in full.
        ("OnFailure", [f"uncloud-host-notify@{PREFIX}{vm.uuid}{SUFFIX}"]),
    ]


def _streams(vm: VM) -> list[tuple[str, Value]]:
    return [
        ("StandardInput", "file"),
        ("StandardInputFile", "/dev/ptmx"),  # never ends: see qemu._console
        ("SyslogIdentifier", "qemu"),
        ("LogExtraFields", [f"UNCLOUD_VM={vm.uuid}"]),
        # A guest that floods its console must not cost journald half a core.
        ("LogRateLimitIntervalUSec", 30 * SECOND),
        ("LogRateLimitBurst", 1000),
    ]


def _user(vm: VM, choices: qemu.Choices) -> list[tuple[str, Value]]:
    return [
        ("DynamicUser", True),
        ("User", names.user(vm.uuid)),
        ("SupplementaryGroups", ["kvm"] * (choices.accel == "kvm")),
        ("RuntimeDirectory", [names.runtime_directory(vm.uuid).removeprefix("/run/")]),
        ("RuntimeDirectoryMode", 0o750),
        ("UMask", 0o077),
        ("OpenFile", [[file.path, file.use, int(file.readonly)] for file in drives.files(vm)]),
        ("LoadCredential", [[name, path] for name, path in drives.credentials(vm).items()]),
        ("LimitCORE", 0),
        ("OOMPolicy", "stop"),
    ]
