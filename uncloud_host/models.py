"""What a VM entry in etcd may say: parsed once at the border, typed and frozen inside.

An entry belongs to its user. Unknown top-level fields are somebody else's and are ignored here; unknown fields
inside disks, nics or vnc are typing mistakes that would change what runs, so they make the entry invalid.
Messages name the field's path and what was expected; pydantic's own texts never reach a person.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from uncloud_host.devices import (
    PRINTABLE,
    VIRTIO_DISKS,
    Boot,
    CloudInit,
    Cpu,
    Disk,
    Expected,
    Limits,
    Nic,
    Vnc,
    at_most,
    like,
    printable,
)
from uncloud_host.problems import problems, repeated

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MACHINE = r"(q35|pc|pc-(q35|i440fx)-[0-9]{1,2}\.[0-9]{1,2})"
# The host named by a value that is not JSON (a comma too many, say): whom the mistake should be told.
_HOST_IN_TEXT = re.compile(rb'"host"\s*:\s*"([^"\\]+)"')

_HOST = {**PRINTABLE, "minLength": 1, "maxLength": 255}
_NAME = {"type": "string", "pattern": r"^[^$\x00-\x1f\x7f]*[^$\x00-\x1f\x7f \\]$"}
# systemd 257 writes the path of a limit unquoted for its own executor: the VM does not start, or loses the limit.
IN_NO_LIMIT = set(" \t\"'\\=")
NOT_READ = {"status_reason", "metadata"}
QEMU_MEMORY = 128  # MiB, at the least, beside the guest's memory
IDE_DISKS = {"q35": 6, "pc": 4}


class InvalidEntry(Exception):
    """The value is no VM entry; `args` are its problems, each a line that names the field and what was expected."""

    def __str__(self) -> str:
        """Tell one problem: as many as a status_reason has room for."""
        return str(self.args[0])


class Status(StrEnum):
    """The words of an entry's `status`; an absent status means the same as TO_START."""

    TO_START = "TO_START"
    RUNNING = "RUNNING"
    TO_STOP = "TO_STOP"
    STOP = "STOP"
    TO_RESTART = "TO_RESTART"
    FAILED = "FAILED"


def is_uuid(text: str) -> bool:
    """Tell whether a key's last part is a uuid in lower case; no other key is ever started."""
    return _UUID.fullmatch(text) is not None


def _name(text: str) -> str:
    # Both are lost from the unit's Description= at a daemon-reload (seen on systemd 257).
    if text != text.strip() or text.endswith("\\"):
        raise ValueError
    return printable(text)


class Entry(BaseModel):
    """A VM as its user wrote it. Everything but `host` has a default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", title="VM entry")

    host: Annotated[str, AfterValidator(printable), WithJsonSchema(_HOST)] = Field(
        min_length=1, max_length=255, description="the name of a VM host"
    )
    status: Status | None = Field(default=None, strict=False, description=f"one of {', '.join(Status)}")
    status_reason: Annotated[object, WithJsonSchema({"type": "string"})] = Field(
        default=None,  # whatever else stands there makes no entry invalid
        description="a text that the agent writes",
    )
    name: Annotated[str, AfterValidator(_name), WithJsonSchema(_NAME)] | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="1 to 200 printable characters without $, no space at either end, not ending in a backslash",
    )
    memory: int = Field(default=1024, ge=8, le=1 << 26, description="an integer from 8 up (MiB)")
    smp: int | None = Field(default=None, ge=1, le=1024, description="an integer from 1 to 1024 (virtual CPUs)")
    cpu: Cpu = Field(default=Cpu(), description="an object")
    machine: Annotated[str, *like(_MACHINE)] | None = Field(
        default=None, description="q35, pc or a version of them, like pc-q35-10.0"
    )
    firmware: Literal["bios", "uefi"] = Field(default="bios", description="bios or uefi")
    disks: Annotated[tuple[Disk, ...], at_most(24)] = Field(
        default=(), max_length=24, description="a list of at most 24 objects"
    )
    nics: Annotated[tuple[Nic, ...], at_most(8)] = Field(
        default=(), max_length=8, description="a list of at most 8 objects"
    )
    boot: Boot = Field(default=Boot(), description="an object")
    vnc: Vnc = Field(default=Vnc(), description="an object")
    cloud_init: CloudInit | None = Field(default=None, description="an object")
    rng: bool = Field(default=True, description="true or false")
    balloon: bool = Field(default=True, description="true or false")
    pvpanic: bool = Field(default=True, description="true or false")
    guest_agent: bool = Field(default=True, description="true or false")
    limits: Limits = Field(default=Limits(), description="an object")
    restart: Literal["always", "on-failure", "no"] = Field(
        default="always", description="one of always, on-failure, no"
    )
    stop_timeout: int | None = Field(default=None, ge=1, le=86400, description="an integer from 1 to 86400 (seconds)")
    metadata: object = Field(default=None, description="anything; it is never looked at")

    @field_validator("cpu")
    @classmethod
    def _processors_agree(cls, cpu: Cpu, info: ValidationInfo) -> Cpu:
        if cpu.is_arranged and info.data.get("smp") not in {None, cpu.product}:
            raise Expected(f"sockets x cores x threads to be smp ({info.data['smp']})")
        return cpu

    @field_validator("disks")
    @classmethod
    def _disks_have_room(cls, disks: tuple[Disk, ...], info: ValidationInfo) -> tuple[Disk, ...]:
        if any(disk.bus == "virtio" for disk in disks[VIRTIO_DISKS:]):
            raise Expected(f"no bus virtio beyond the first {VIRTIO_DISKS} disks (use scsi)")
        most = IDE_DISKS["q35" if "q35" in (info.data.get("machine") or "q35") else "pc"]
        if sum(disk.bus in {"ide", "cdrom"} for disk in disks) > most:
            raise Expected(f"at most {most} disks of bus ide or cdrom")
        twice = [source for source, count in Counter(disk.source for disk in disks).items() if count > 1]
        if any(disk.source in twice and not disk.is_readonly for disk in disks):
            raise Expected("each image once, unless it is read-only")
        return disks

    @field_validator("nics")
    @classmethod
    def _macs_differ(cls, nics: tuple[Nic, ...]) -> tuple[Nic, ...]:
        macs = [nic.mac for nic in nics if nic.mac]
        if len(set(macs)) != len(macs):
            raise Expected("each mac once")
        return nics

    @field_validator("boot")
    @classmethod
    def _boots_what_it_has(cls, boot: Boot, info: ValidationInfo) -> Boot:
        if not info.data.keys() >= {"disks", "nics"}:
            return boot  # what is wrong there is told there
        has = {f"disk{n}" for n in range(len(info.data["disks"]))}
        has |= {f"nic{n}" for n in range(len(info.data["nics"]))}
        order = boot.order or ()
        if not has.issuperset(order) or len(set(order)) != len(order):
            few = f"a list of {', '.join(sorted(has))}, each once" if has else "none, as there are no disks and nics"
            raise Expected(few, "order")
        return boot

    @field_validator("limits")
    @classmethod
    def _can_be_set(cls, limits: Limits, info: ValidationInfo) -> Limits:
        least = info.data.get("memory", 0) + QEMU_MEMORY
        if limits.memory_max is not None and limits.memory_max < least:
            raise Expected(f"at least {least}: memory, and {QEMU_MEMORY} for QEMU itself", "memory_max")
        paths = [disk.file for disk in info.data.get("disks", ()) if disk.file]
        if limits.of_io and any(set(path) & IN_NO_LIMIT for path in paths):
            raise Expected("no io_..._max together with a disk whose file has a space, quote, backslash or =")
        return limits

    @property
    def cpus(self) -> int:
        """How many virtual CPUs there are."""
        return self.smp or self.cpu.product

    def fingerprint(self) -> str:
        """Hash the fields that need a restart to change; fields left at their default do not count, so that a
        newer version with more fields gets the same hash."""
        other = {"host", "status", "status_reason", "metadata", "limits"}
        told = self.model_dump(mode="json", exclude_defaults=True, exclude=other)
        if self.cpus == 1 and not self.cpu.is_arranged:
            told.pop("smp", None)  # as when 1 was the default: what older versions started is not pending
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class VM:
    """A valid entry with its identity and the revisions at which it was read."""

    uuid: str
    entry: Entry
    create_revision: int
    mod_revision: int

    @property
    def name(self) -> str:
        """What people call it: the entry's name, else the uuid."""
        return self.entry.name or self.uuid


def parse(value: bytes) -> Entry:
    """Read an entry. Raises InvalidEntry with a one-line reason."""
    try:
        entry = Entry.model_validate_json(value)
    except ValidationError as error:
        raise InvalidEntry(*problems(error, Entry)) from None
    if twice := repeated(value, Entry, besides=NOT_READ):
        raise InvalidEntry(*twice)
    return entry


def host_of(value: bytes) -> str | None:
    """Whom an entry concerns, also when it is invalid or no JSON at all; None if it names nobody."""
    return host_and_status(value)[0]


def names(host: str) -> Callable[[bytes], bool]:
    """Make a test whether an entry concerns a host, which is quick about the very many that do not.

    Parsed is only what may name it: in the name's own bytes, or in others if there is an escape.
    """
    quoted = json.dumps(host, ensure_ascii=False).encode()
    return lambda value: (quoted in value or b"\\" in value) and host_of(value) == host


def host_and_status(value: bytes) -> tuple[str | None, object]:
    """Whom an entry concerns, and the status that is written there, valid or not: not the 100 µs of a whole check."""
    try:
        written = json.loads(value)
        host, status = written.get("host"), written.get("status")
    except (ValueError, RecursionError, AttributeError):
        match = _HOST_IN_TEXT.search(value)
        return match[1].decode(errors="replace") if match else None, ""
    return host if isinstance(host, str) else None, status
