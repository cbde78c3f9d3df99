"""What a VM entry in etcd may say: parsed once at the border, typed and frozen inside.

An entry belongs to its user. Unknown top-level fields are somebody else's and are ignored here; unknown fields
inside disks, nics or vnc are typing mistakes that would change what runs, so they make the entry invalid.
Messages name the field's path and what was expected; pydantic's own texts never reach a person.
"""

import hashlib
import ipaddress
import json
import posixpath
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Linux cuts longer interface names silently and so reaches another interface (seen with QEMU's ifname=).
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # unicast only: QEMU itself accepts ff:ff:ff:ff:ff:ff
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")
# The host named by a value that is not JSON (a comma too many, say): whom the mistake should be told.
_HOST_IN_TEXT = re.compile(rb'"host"\s*:\s*"([^"\\]+)"')

_SHOWN = 60  # characters of a wrong value
VNC_PORTS = range(5900, 65536)  # QEMU counts displays from port 5900


class InvalidEntry(Exception):
    """The value is no VM entry; the message is one line that names the field and what was expected."""


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


def _printable(text: str) -> str:
    # `$`: PID 1 rewrites it in transient unit files at a daemon-reload, the next restart would get another argument.
    if not text.isprintable() or "$" in text:
        raise ValueError
    return text


def _name(text: str) -> str:
    # Both are lost from the unit's Description= at a daemon-reload (seen on systemd 257).
    if text != text.strip() or text.endswith("\\"):
        raise ValueError
    return _printable(text)


def _path(text: str) -> str:
    # `%`: PID 1 doubles it in OpenFile= at a daemon-reload (seen on systemd 257). `:` separates OpenFile='s fields.
    if posixpath.normpath(text) != text or not text.startswith("/") or text.startswith("//") or set(text) & set("%:"):
        raise ValueError
    return _printable(text)


def _interface(text: str) -> str:
    if not _INTERFACE.fullmatch(text):
        raise ValueError
    return text


def _mac(text: str) -> str:
    if not _MAC.fullmatch(text.lower()):
        raise ValueError
    return text.lower()


def _tcp(value: bool | str) -> bool | str:
    if isinstance(value, str):
        match = _ADDRESS.fullmatch(value)
        if not match or int(match["port"]) not in VNC_PORTS:
            raise ValueError
        ipaddress.ip_address(match["six"] or match["four"])  # no names: asking DNS would hold up every VM
    return value


class _Part(BaseModel):
    """A nested object of the entry: frozen, strictly typed, and with no field that we do not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Disk(_Part):
    """One disk: a raw image file, as a virtio disk or as a CD-ROM."""

    file: Annotated[str, AfterValidator(_path)] = Field(
        description="an absolute path without . or .. and without % : $ or control characters"
    )
    bus: Literal["virtio", "cdrom"] = Field(default="virtio", description="one of virtio, cdrom")
    readonly: bool | None = Field(default=None, description="true or false (a cdrom is always read-only)")

    @field_validator("readonly")
    @classmethod
    def _cdrom_is_read_only(cls, readonly: bool | None, info: ValidationInfo) -> bool | None:
        if info.data.get("bus") == "cdrom" and readonly is False:
            raise ValueError
        return readonly

    @property
    def is_readonly(self) -> bool:
        """A CD-ROM is read-only without saying so."""
        return self.bus == "cdrom" or bool(self.readonly)


class Nic(_Part):
    """One virtio network card: a tap in a bridge of the host."""

    bridge: Annotated[str, AfterValidator(_interface)] = Field(description="the name of a bridge (at most 15 letters)")
    mac: Annotated[str, AfterValidator(_mac)] | None = Field(
        default=None, description="a unicast MAC address like 02:00:b3:39:79:75"
    )


class Vnc(_Part):
    """Where the screen can be seen: a unix socket in the VM's runtime directory, a tcp address, or both."""

    unix: bool = Field(default=True, description="true or false")
    tcp: Annotated[bool | str, AfterValidator(_tcp)] = Field(
        default=False,
        description='true (the next free port), false, or "ADDRESS:PORT" with a port from 5900 up, like "[::1]:5901"',
    )


class Entry(BaseModel):
    """A VM as its user wrote it. Everything but `host` has a default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    host: Annotated[str, AfterValidator(_printable)] = Field(min_length=1, description="the name of a VM host")
    status: Status | None = Field(default=None, strict=False, description=f"one of {', '.join(Status)}")
    status_reason: object = None  # ours to write; whatever else stands there makes no entry invalid
    name: Annotated[str, AfterValidator(_name)] | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="1 to 200 printable characters without $, not ending in a space or backslash",
    )
    memory: int = Field(default=1024, ge=8, le=1 << 26, description="an integer from 8 up (MiB)")
    smp: int = Field(default=1, ge=1, le=1024, description="an integer from 1 to 1024 (virtual CPUs)")
    disks: tuple[Disk, ...] = Field(default=(), max_length=24, description="a list of at most 24 objects")
    nics: tuple[Nic, ...] = Field(default=(), max_length=8, description="a list of at most 8 objects")
    vnc: Vnc = Field(default=Vnc(), description="an object")
    restart: Literal["always", "on-failure", "no"] = Field(
        default="always", description="one of always, on-failure, no"
    )
    stop_timeout: int | None = Field(default=None, ge=1, le=86400, description="an integer from 1 to 86400 (seconds)")

    def fingerprint(self) -> str:
        """Hash the fields that need a restart to change; fields left at their default do not count, so that a
        newer version with more fields gets the same hash."""
        told = self.model_dump(mode="json", exclude_defaults=True, exclude={"host", "status", "status_reason"})
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
        return Entry.model_validate_json(value)
    except ValidationError as error:
        raise InvalidEntry(_reason(error)) from None


def host_of(value: bytes) -> str | None:
    """Whom an entry concerns, also when it is invalid or no JSON at all; None if it names nobody."""
    try:
        host = json.loads(value).get("host")
    except (ValueError, RecursionError, AttributeError):
        match = _HOST_IN_TEXT.search(value)
        return match[1].decode(errors="replace") if match else None
    return host if isinstance(host, str) else None


def _reason(error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    # A mistyped name makes two errors, "unknown" and "missing": the first tells more.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    if first["type"] == "json_invalid":
        return f"not JSON: {first['ctx']['error'].partition(' at line')[0]}"  # our own write moves the place
    path, expected = _place(first["loc"])
    if not path:
        return f"expected a JSON object, got {_short(first['input'])}"
    if first["type"] == "extra_forbidden":
        return f"{path}: unknown field"
    if first["type"] == "missing":
        return f"{path}: missing, expected {expected}"
    return f"{path}: expected {expected}, got {_short(first['input'])}"


def _place(loc: tuple[int | str, ...]) -> tuple[str, str]:
    """Turn pydantic's loc into a path as people write it, and find the description of what is expected there."""
    path, expected, model = "", "an object", Entry  # type: str, str, type[BaseModel] | None
    for part in loc:
        if isinstance(part, int):
            path, expected = f"{path}[{part}]", "an object"
        elif model is not None:  # else the name of a union's branch, which pydantic appends to the path
            path = f"{path}.{part[:_SHOWN]}" if path else part
            field = model.model_fields.get(part)
            expected = (field.description or "") if field else ""
            model = _model_in(field.annotation) if field else None
    return path, expected


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the nested model of a field's type: Vnc itself, or Disk in tuple[Disk, ...]."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
