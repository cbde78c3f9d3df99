"""A unit's properties, as PID 1 gets them over D-Bus, in the syntax of unit files, as `systemctl cat` shows them. Pure.

What differs from PID 1's own writing is for people: words are quoted only where they must be, commands stand with one
option a line, and settings that say nothing are left out.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Any

from uncloud_host.unit import SECOND, Value

UNIT = {"Description", "After", "Before", "IgnoreOnIsolate", "StartLimitIntervalSec", "StartLimitBurst", "OnFailure"}
# Names that are others on D-Bus; besides, Ex is dropped, and USec is Sec.
_NAMES = {"CPUQuotaPerSecUSec": "CPUQuota", "StandardInputFile": "StandardInput", "PrivateTmpEx": "PrivateTmp"}
_OCTAL = {"UMask", "RuntimeDirectoryMode"}
_COMMANDS = {"ExecStart", "ExecStartPreEx", "ExecStopEx", "ExecStopPostEx"}
_FLAGS = {"ignore-failure": "-", "privileged": "+"}
_NAMESPACES = {
    0x00020000: "mnt", 0x02000000: "cgroup", 0x04000000: "uts", 0x08000000: "ipc", 0x10000000: "user",
    0x20000000: "pid", 0x40000000: "net",
}  # fmt: skip
_SPANS = (("month", 2629800), ("w", 604800), ("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_FAMILIES, _PROTOCOLS = {2: "ipv4", 10: "ipv6"}, {6: "tcp", 17: "udp"}
_PLAIN = re.compile(r"[A-Za-z0-9_@+:,./=~{}\[\]-]+")
_SET_BY_FILE = ("StandardInput", "file")  # StandardInputFile says it too


def text(listed: Iterable[tuple[str, Value]]) -> str:
    """Write a unit file."""
    sections: dict[str, list[str]] = {"Unit": [], "Service": []}
    for key, value in listed:
        name = _NAMES.get(key) or re.sub("Ex$", "", key).replace("USec", "Sec")
        lines = [] if (key, value) == _SET_BY_FILE else [f"{name}={line}" for line in _lines(key, value)]
        sections["Unit" if name in UNIT else "Service"] += lines
    return "\n".join(f"[{section}]\n" + "".join(f"{line}\n" for line in lines) for section, lines in sections.items())


def word(text: str) -> str:
    """Write one word so that PID 1 reads it as it is: % begins a specifier, a lone ; another command."""
    text = text.replace("%", "%%")
    if _PLAIN.fullmatch(text.replace("%", "")):
        return text
    quote = "'" if '"' in text and "'" not in text else '"'
    return quote + text.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote


def command(argv: Sequence[str]) -> str:
    """Write a command with one option a line."""
    return " \\\n  ".join(options([word(each) for each in argv]))


def options(words: Iterable[str]) -> list[str]:
    """Put the words of a command into lines: each option with its value."""
    lines: list[str] = []
    for each in words:
        if lines and not each.startswith("-"):
            lines[-1] += f" {each}"
        else:
            lines.append(each)
    return lines


def _lines(key: str, value: Any) -> list[str]:
    """Write the values of a property, of which each is a line."""
    if key in _COMMANDS:
        return [_command(*one) for one in value]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    if isinstance(value, int):
        return [_number(key, value)]
    if isinstance(value, str):
        return ["file:" * (key == "StandardInputFile") + value.replace("%", "%%")]
    if value and isinstance(value[0], bool):  # a list of what is allowed, or of what is not
        return [("" if value[0] else "~") + " ".join(value[1])]
    if key == "Environment":
        return [word(one) for one in value]
    if value and isinstance(value[0], str):
        return [" ".join(map(word, value))]
    return [_item(key, one) for one in value]


def _command(_binary: str, argv: Sequence[str], flags: bool | Sequence[str]) -> str:
    prefix = "" if isinstance(flags, bool) else "".join(sign for flag, sign in _FLAGS.items() if flag in flags)
    return prefix + command(argv)


def _number(key: str, value: int) -> str:
    if key in _OCTAL:
        return f"{value:04o}"
    if key == "CPUQuotaPerSecUSec":
        return f"{value / 10_000:.2f}%"
    if key == "RestrictNamespaces":
        return " ".join(name for flag, name in _NAMESPACES.items() if value & flag)
    if key == "CapabilityBoundingSet":
        return "" if value == 0 else f"{value:#x}"
    return _span(value) if key.endswith("USec") else str(value)


def _span(microseconds: int) -> str:
    rest, parts = microseconds // SECOND, []
    for name, length in _SPANS:
        if count := rest // length:
            parts.append(f"{count}{name}")
        rest %= length
    return " ".join(parts) or "0"


def _item(key: str, item: Any) -> str:
    match key, item:
        case "OpenFile", (path, name, is_readonly):
            return f"{path}:{name}".replace("\\", "\\x5c") + ":read-only" * bool(is_readonly)
        case "BindPaths", (source, destination, may_be_missing, flags):
            return f"{'-' * may_be_missing}{source}:{destination}:{'rbind' if flags else 'norbind'}"
        case (("IPAddressAllow" | "IPAddressDeny"), (_, address, length)):
            return f"{ipaddress.ip_address(bytes(address))}/{length}"
        case (("SocketBindAllow" | "SocketBindDeny"), (family, protocol, count, port)):
            named = [_FAMILIES.get(family, ""), _PROTOCOLS.get(protocol, ""), str(port) if count else ""]
            return ":".join(filter(None, named)) or "any"
        case "LoadCredential", (name, path):
            return f"{name}:{path}"
    return " ".join(map(str, item))
