r"""The parts of a VM entry: disks, nics, screen, boot, cpu, seed, limits; and which values each may have.

Every text that reaches QEMU or PID 1 is checked here, once, by what QEMU and PID 1 would do with it. Patterns are
matched in Python, whole: pydantic's own are Rust's, where `$` and `\Z` mean something else.
"""

import ipaddress
import posixpath
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

SECRETS = "/etc/uncloud-host/secrets"  # entries name files in here; what is in them is never in etcd
VNC_PORTS = range(5900, 65536)  # QEMU counts displays from port 5900
LONGEST_PATH = 1000  # characters, of which each may be 4 of Linux's 4095 bytes
VIRTIO_DISKS = 14  # what drives.py has PCI slots for

# Linux cuts longer interface names silently and so reaches another interface (seen with QEMU's ifname=).
_INTERFACE = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}"
_MAC = r"[0-9a-fA-F][02468aceACE](:[0-9a-fA-F]{2}){5}"  # unicast only: QEMU itself accepts ff:ff:ff:ff:ff:ff
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{4,5})")
_TCP = {
    "anyOf": [{"type": "boolean"}, {"type": "string", "pattern": r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]{4,5}$"}]
}  # fmt: skip
_MODEL = r"(?!help$)[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"  # -cpu help: QEMU prints a list and ends with status 0
_RBD = r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,95}){1,2}"
_SERIAL = r"[A-Za-z0-9_.+-]{1,20}"  # virtio-blk and IDE have 20 bytes for it
_FILE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_BOOTABLE = r"(disk|nic)[0-9]{1,2}"


class Expected(ValueError):
    """Says what was expected, where the field's own description does not say it, and of which field in an object."""

    def __init__(self, text: str, field: str = "") -> None:
        super().__init__(text)
        self.field = field


def printable(text: str) -> str:
    """Take a text that PID 1 keeps as it is. Raises ValueError."""
    # `$`: PID 1 rewrites it in transient unit files at a daemon-reload, the next restart would get another argument.
    if not text.isprintable() or "$" in text:
        raise ValueError
    return text


def _path(text: str) -> str:
    if len(text) > LONGEST_PATH or text == "/":
        raise ValueError
    # `%`: PID 1 doubles it in OpenFile= at a daemon-reload (seen on systemd 257). `:` separates OpenFile='s fields.
    if posixpath.normpath(text) != text or not text.startswith("/") or text.startswith("//") or set(text) & set("%:"):
        raise ValueError
    return printable(text)


def _tcp(value: bool | str) -> bool | str:
    if isinstance(value, str):
        match = _ADDRESS.fullmatch(value)
        if not match or int(match["port"]) not in VNC_PORTS:
            raise ValueError
        # No names: asking DNS would hold up every VM. One spelling of each, so that it is seen when two are the same.
        if match["six"]:
            return f"[{ipaddress.IPv6Address(match['six'])}]:{int(match['port'])}"
        return f"{ipaddress.IPv4Address(match['four'])}:{int(match['port'])}"
    return value


def like(pattern: str) -> tuple[AfterValidator, WithJsonSchema]:
    """Make what pydantic needs for a text that matches a pattern as a whole."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^({pattern})$"})


def at_most(number: int) -> BeforeValidator:
    """Refuse a longer list before its items are looked at: there may be a million of them."""

    def check(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) > number:
            raise ValueError
        return tuple(value)  # a list is one only in JSON, and what comes from here is not JSON any more

    return BeforeValidator(check)


PRINTABLE = {"type": "string", "pattern": r"^[^$\x00-\x1f\x7f]*$"}


def _lower(text: str | None) -> str | None:
    return text.lower() if text else text


AbsolutePath = Annotated[
    str, AfterValidator(_path), WithJsonSchema({"type": "string", "pattern": r"^/[^%:$\x00-\x1f\x7f]+$"})
]
Name = Annotated[str, *like(_MODEL)]
Secret = Annotated[str, *like(_FILE_NAME)]
PATH = "an absolute path without . or .. and without % : $ or control characters"


class Part(BaseModel):
    """A nested object of the entry: frozen, strictly typed, and with no field that we do not know."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Cpu(Part):
    """The virtual processors: which model, and how they are arranged."""

    model: Name | None = Field(default=None, description='a CPU model of QEMU, like "host" or "EPYC-v4"')
    sockets: int = Field(default=1, ge=1, le=64, description="an integer from 1 to 64")
    cores: int = Field(default=1, ge=1, le=1024, description="an integer from 1 to 1024")
    threads: int = Field(default=1, ge=1, le=8, description="an integer from 1 to 8")

    @property
    def product(self) -> int:
        """Say how many processors this arrangement makes."""
        return self.sockets * self.cores * self.threads

    @property
    def is_arranged(self) -> bool:
        """Tell whether the entry says anything about sockets, cores and threads."""
        return bool(self.model_fields_set - {"model"})


class Disk(Part):
    """One disk: an image file or an rbd image, on one of the busses that guests have drivers for."""

    file: AbsolutePath | None = Field(default=None, description=PATH)
    rbd: Annotated[str, *like(_RBD)] | None = Field(
        default=None, description="POOL/IMAGE or POOL/NAMESPACE/IMAGE, of letters, digits and _ . + = -"
    )
    bus: Literal["virtio", "scsi", "ide", "cdrom"] = Field(
        default="virtio", description="one of virtio, scsi, ide, cdrom"
    )
    format: Literal["raw", "qcow2"] = Field(default="raw", description="raw or qcow2 (an rbd image is raw)")
    readonly: bool | None = Field(default=None, description="true or false (a cdrom is always read-only)")
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] = Field(
        default="writeback", description="one of writeback, none, writethrough, directsync, unsafe"
    )
    discard: bool = Field(default=False, description="true or false")
    serial: Annotated[str, *like(_SERIAL)] | None = Field(
        default=None, description="1 to 20 letters, digits and _ . + -"
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if bool(self.file) == bool(self.rbd):
            raise Expected("either file or rbd")
        return self

    @field_validator("format")
    @classmethod
    def _rbd_is_raw(cls, value: str, info: Any) -> str:
        if value != "raw" and info.data.get("rbd"):
            raise ValueError
        return value

    @field_validator("readonly")
    @classmethod
    def _cdrom_is_read_only(cls, readonly: bool | None, info: Any) -> bool | None:
        if info.data.get("bus") == "cdrom" and readonly is False:
            raise ValueError
        if info.data.get("bus") == "ide" and readonly:
            raise Expected("no readonly on bus ide, whose disks are always writable (use virtio, scsi or cdrom)")
        return readonly

    @property
    def is_readonly(self) -> bool:
        """A CD-ROM is read-only without saying so."""
        return self.bus == "cdrom" or bool(self.readonly)

    @property
    def source(self) -> tuple[str, str]:
        """Say which field names the image, and the image."""
        return ("file", self.file) if self.file else ("rbd", self.rbd or "")


class Nic(Part):
    """One network card: a tap in a bridge of the host."""

    bridge: Annotated[str, *like(_INTERFACE)] = Field(description="the name of a bridge (at most 15 letters)")
    model: Literal["virtio", "e1000", "e1000e", "rtl8139"] = Field(
        default="virtio", description="one of virtio, e1000, e1000e, rtl8139"
    )
    mac: Annotated[str, *like(_MAC)] | None = Field(
        default=None, description="a unicast MAC address like 02:00:b3:39:79:75"
    )
    vlan: int | None = Field(default=None, ge=1, le=4094, description="an integer from 1 to 4094")
    mtu: int | None = Field(
        default=None, ge=68, le=65521, description="an integer from 68 to 65521 (bytes), on a nic of model virtio"
    )

    @field_validator("mtu")
    @classmethod
    def _can_be_told(cls, mtu: int | None, info: Any) -> int | None:
        if mtu and info.data.get("model") != "virtio":
            raise ValueError  # only a virtio nic tells its guest
        return mtu

    _mac_in_lower_case = field_validator("mac")(_lower)


class Vnc(Part):
    """Where the screen can be seen: a unix socket in the VM's runtime directory, a tcp address, or both."""

    unix: bool = Field(default=True, description="true or false")
    tcp: Annotated[bool | str, AfterValidator(_tcp), WithJsonSchema(_TCP)] = Field(
        default=False,
        description='true (the next free port), false, or "ADDRESS:PORT" with a port from 5900 up, like "[::1]:5901"',
    )
    password_file: Secret | None = Field(default=None, description=f"the name of a file in {SECRETS}")


class Boot(Part):
    """What is booted: devices in an order, or a kernel."""

    order: Annotated[tuple[Annotated[str, *like(_BOOTABLE)], ...] | None, at_most(32)] = Field(
        default=None, description='a list of disks and nics that the entry has, like ["disk0", "nic0"]'
    )
    kernel: AbsolutePath | None = Field(default=None, description=PATH)
    initrd: AbsolutePath | None = Field(default=None, description=PATH)
    append: Annotated[str, AfterValidator(printable), WithJsonSchema(PRINTABLE)] | None = Field(
        default=None, max_length=2000, description="at most 2000 printable characters without $"
    )

    @model_validator(mode="after")
    def _is_for_a_kernel(self) -> Self:
        if not self.kernel and (self.initrd or self.append):
            raise Expected("an absolute path beside initrd and append", "kernel")
        return self


class CloudInit(Part):
    """What cloud-init in the guest finds on its NoCloud disk; objects are written there as JSON, which is YAML."""

    user_data: str | dict[str, Any] | None = Field(default=None, description="a text or an object")
    user_data_file: Secret | None = Field(default=None, description=f"the name of a file in {SECRETS}")
    meta_data: str | dict[str, Any] | None = Field(default=None, description="a text or an object")
    network_config: str | dict[str, Any] | None = Field(default=None, description="a text or an object")

    @model_validator(mode="after")
    def _has_one_user_data(self) -> Self:
        if self.user_data is not None and self.user_data_file:
            raise Expected("only one of user_data and user_data_file")
        return self


class Limits(Part):
    """What the host gives a VM at most, or in proportion to others; all are systemd's, and applied while it runs."""

    cpu_weight: int | None = Field(default=None, ge=1, le=10000, description="an integer from 1 to 10000")
    cpu_quota: int | None = Field(
        default=None, ge=1, le=102400, description="an integer from 1 to 102400 (percent of one CPU)"
    )
    io_weight: int | None = Field(default=None, ge=1, le=10000, description="an integer from 1 to 10000")
    io_read_bandwidth_max: int | None = Field(
        default=None, ge=1, le=1 << 50, description="an integer from 1 up (bytes per second)"
    )
    io_write_bandwidth_max: int | None = Field(
        default=None, ge=1, le=1 << 50, description="an integer from 1 up (bytes per second)"
    )
    io_read_iops_max: int | None = Field(
        default=None, ge=1, le=1 << 50, description="an integer from 1 up (operations per second)"
    )
    io_write_iops_max: int | None = Field(
        default=None, ge=1, le=1 << 50, description="an integer from 1 up (operations per second)"
    )
    memory_max: int | None = Field(default=None, ge=8, le=1 << 26, description="an integer from 8 up (MiB)")

    @property
    def of_io(self) -> bool:
        """Tell whether there are limits that systemd sets by the paths of disks."""
        rates = (self.io_read_bandwidth_max, self.io_write_bandwidth_max, self.io_read_iops_max, self.io_write_iops_max)
        return any(rates)
