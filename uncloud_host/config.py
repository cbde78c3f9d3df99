"""The configuration: environment variables, from /etc/default/uncloud-host when systemd starts the agent.

A wrong value is one line that names the variable and what was expected.
"""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from uncloud_host import qemu, unit
from uncloud_host.etcderror import Access, EtcdError, address
from uncloud_host.events import FAILURES, Name

PREFIX = "UNCLOUD_"
VHOST = "/dev/vhost-net"
T = TypeVar("T")
# What an audit finds.
_FOUND = frozenset(
    {
        Name.MISSING, Name.FOREIGN, Name.WRONG_HOST, Name.UNKNOWN_HOST, Name.DUPLICATE_HOST, Name.HOST_SILENT,
        Name.AGENT_DOWN, Name.REMINDER, Name.RESOLVED,
    }
)  # fmt: skip


class ConfigError(Exception):
    """A variable is wrong; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Mail:
    """Whom to tell what, and how."""

    to: tuple[str, ...]
    sender: str
    on: frozenset[Name]
    smtp: str | None  # "HOST:PORT"; None: /usr/sbin/sendmail
    tls: str = "no"  # no, starttls, tls
    ca: str | None = None  # a file; None: the system's
    user: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Ceph:
    """As whom to speak to Ceph, for rbd disks. The files are looked at when they are needed."""

    conf: str
    user: str  # without "client."
    keyring: str


@dataclass(frozen=True, slots=True)
class Config:
    """Everything an administrator of the host decides."""

    host: str
    etcd: Access
    prefix: str
    mail: Mail
    choices: qemu.Choices
    units: unit.Settings
    vnc_listen: str
    image_dirs: tuple[str, ...]
    bridges: tuple[str, ...]  # patterns as in the shell
    ceph: Ceph
    metrics_listen: tuple[str, int] | None  # None: no metrics
    reminder: int  # hours between reminders of what lasts; 0: none


def read(environment: Mapping[str, str]) -> Config:
    """Read all variables. Raises ConfigError."""
    known = _Variables(environment)
    accel = known("ACCEL", "kvm", "kvm or tcg", _one_of("kvm", "tcg"))
    host = known("HOST_NAME", socket.gethostname(), "a name without spaces", _word)
    ceph = _ceph(known)
    config = Config(
        host=host,
        etcd=_etcd(known),
        prefix=known("PREFIX", "/v1", "a key like /v1, without a slash at its end", _prefix),
        mail=_mail(known, host),
        choices=qemu.Choices(
            accel=accel,
            cpu=known("CPU", "host" if accel == "kvm" else "max", "a CPU model of QEMU", _option),
            machine=known("MACHINE", "q35", "a machine type of QEMU", _option),
            ceph_user=ceph.user,
            # Frames between tap and guest through the kernel, not QEMU: libvirt's and Proxmox's default, too.
            vhost=known("VHOST", "auto", "auto or no", _one_of("auto", "no")) == "auto" and Path(VHOST).exists(),
        ),
        units=unit.Settings(
            restart_limit=known("RESTART_LIMIT", "15", "an integer from 1 up", _integer(1, 1_000_000)),
            stop_timeout=known("STOP_TIMEOUT", "120", "an integer from 1 to 86400 (seconds)", _integer(1, 86400)),
        ),
        vnc_listen=known("VNC_LISTEN", "127.0.0.1", "an address like 127.0.0.1 or [::]", _word),
        image_dirs=known("IMAGE_DIRS", "/var/lib/uncloud-host/images", "absolute paths separated by :", _paths),
        bridges=known("BRIDGES", "*", "names of bridges, or patterns like br*, separated by spaces", _words),
        ceph=ceph,
        metrics_listen=known("METRICS_LISTEN", "", "HOST:PORT, like [::1]:9477", _listen),
        # Not longer than the spool remembers what it has told.
        reminder=known("AUDIT_REMINDER", "24", "an integer from 0 to 168 (hours)", _integer(0, 168)),
    )
    known.check_for_others()
    return config


def variables(text: str) -> dict[str, str]:
    """Read our variables from a file as systemd does (EnvironmentFile=), as far as one line each goes."""
    found = {}
    for line in text.splitlines():
        name, assigned, value = line.strip().partition("=")
        if assigned and name.startswith(PREFIX):
            quoted = re.fullmatch(r"""(["'])(.*)\1""", value.strip())
            found[name.strip()] = re.sub(r"\\(.)", r"\1", quoted[2] if quoted else value.strip())
    return found


class _Variables:
    """Reads each variable once, and so knows which ones exist."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._asked: set[str] = set()

    def __call__(self, name: str, default: str, expected: str, read: Callable[[str], T]) -> T:
        """Read one; an empty variable is one that is not set."""
        self._asked.add(PREFIX + name)
        text = self._environment.get(PREFIX + name, "").strip() or default
        try:
            return read(text)
        except ValueError:
            raise ConfigError(f"{PREFIX}{name}: expected {expected}, got {text!r}") from None

    def check_for_others(self) -> None:
        """A variable that nothing reads is a typing mistake, and what it should have changed would be missed."""
        for name in sorted(self._environment):
            if name.startswith(PREFIX) and name not in self._asked:
                raise ConfigError(f"{name}: there is no such variable; see uncloud-host(8)")


def _etcd(known: _Variables) -> Access:
    endpoints = known("ETCD", "http://127.0.0.1:2379", "URLs like http://etcd1:2379, separated by spaces", _urls)
    files = [known(name, "", "the path of a readable file", _file) for name in ("ETCD_CA", "ETCD_CERT", "ETCD_KEY")]
    user = known("ETCD_USER", "", "a user of etcd", str)
    password = known("ETCD_PASSWORD_FILE", "", "the path of a readable file", _file)
    if bool(user) != bool(password):
        raise ConfigError("UNCLOUD_ETCD_USER and UNCLOUD_ETCD_PASSWORD_FILE: expected both or none")
    if bool(files[1]) != bool(files[2]):
        raise ConfigError("UNCLOUD_ETCD_CERT and UNCLOUD_ETCD_KEY: expected both or none")
    return Access(endpoints, files[0] or None, files[1] or None, files[2] or None, user or None, password or None)


def _mail(known: _Variables, host: str) -> Mail:
    smtp = known("SMTP", "", "HOST or HOST:PORT", _smtp)
    tls = known("SMTP_TLS", "no", "no, starttls or tls", _one_of("no", "starttls", "tls"))
    ca = known("SMTP_CA", "", "the path of a readable file", _file)
    user = known("SMTP_USER", "", "a user of the SMTP server", str)
    file = known("SMTP_PASSWORD_FILE", "", "the path of a readable file", _file)
    if bool(user) != bool(file):
        raise ConfigError("UNCLOUD_SMTP_USER and UNCLOUD_SMTP_PASSWORD_FILE: expected both or none")
    if user and tls == "no":
        raise ConfigError("UNCLOUD_SMTP_TLS: expected starttls or tls, because UNCLOUD_SMTP_USER is set")
    return Mail(
        to=known("MAIL_TO", "", "mail addresses separated by spaces or commas", _addresses),
        sender=known("MAIL_FROM", f"uncloud-host@{host}", "a mail address", _address),
        on=known("MAIL_ON", "all", f"all, failures, audit, none, or a list of {', '.join(Name)}", _events),
        smtp=smtp,
        tls=tls,
        ca=ca or None,
        user=user or None,
        password=Path(file).read_text(errors="surrogateescape").rstrip("\n") if file else None,
    )


def _ceph(known: _Variables) -> Ceph:
    user = known("CEPH_USER", "libvirt", "a user of Ceph, without client.", _option)
    return Ceph(
        conf=known("CEPH_CONF", "/etc/ceph/ceph.conf", "an absolute path", _path),
        user=user,
        keyring=known("CEPH_KEYRING", f"/etc/ceph/ceph.client.{user}.keyring", "an absolute path", _path),
    )


def _word(text: str) -> str:
    if not text.isprintable() or " " in text or "$" in text:
        raise ValueError
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return read


def _option(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._+-]+", text):
        raise ValueError
    return text


def _prefix(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", text):
        raise ValueError
    return text


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(path.rstrip("/") for path in text.split(":"))
    if not all(path.startswith("/") for path in paths):
        raise ValueError
    return paths


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError
    return text


def _urls(text: str) -> tuple[str, ...]:
    urls = tuple(text.replace(",", " ").split())
    if not urls or not all(
        re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):[0-9]{1,5}/?", url) for url in urls
    ):
        raise ValueError
    for url in urls:
        try:
            address(url)[1].encode("idna")  # UnicodeError is a ValueError
        except EtcdError:
            raise ValueError from None
    return tuple(url.rstrip("/") for url in urls)


def _file(text: str) -> str:
    if text:
        try:
            Path(text).open("rb").close()
        except OSError:
            raise ValueError from None
    return text


def _address(text: str) -> str:
    if not re.fullmatch(r"[^\s@,<>]+@[^\s@,<>]+", text):
        raise ValueError
    return text


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(_address(part) for part in text.replace(",", " ").split())


def _smtp(text: str) -> str | None:
    if not text:
        return None
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::([0-9]{1,5}))?", text)
    if not match or not 0 < int(match[2] or 25) < 65536:  # noqa: PLR2004 - ports end there
        raise ValueError
    return f"{match[1]}:{match[2] or 25}"


def _listen(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})", text)
    if not match or not 0 < int(match[3]) < 65536:  # noqa: PLR2004 - ports end there
        raise ValueError
    return match[1] or match[2], int(match[3])


def _events(text: str) -> frozenset[Name]:
    groups = {"all": frozenset(Name), "failures": FAILURES, "audit": _FOUND, "none": frozenset[Name]()}
    words = text.replace(",", " ").split()
    return frozenset[Name]().union(*(groups.get(word) or ({Name(word)} if word != "none" else ()) for word in words))
