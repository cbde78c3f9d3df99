"""The administrator's files for Ceph, and what of them is given to QEMU. Pure."""

import base64
import binascii
import re
from collections.abc import Iterator

# Seconds in which a monitor must answer who connects. Ceph's own 300 would make a start with dead monitors hang; once
# connected, a running VM waits for Ceph as long as it takes.
CONNECT = 10

_SECTION = re.compile(r"\s*\[([^\]]*)\]")
_OPTION = re.compile(r"\s*([^=#;]+?)\s*=(.*)")
# What is secret, what a VM's user can neither read nor write, and what is decided here.
_LEFT_OUT = re.compile(
    "key|secret|token|password|(^|_)log(_|$)|^debug|^err_to|admin_socket|run_dir|pid_file|crash_dir|client_mount_timeout"
)


def conf(text: str, user: str) -> str:
    """Give those options of a ceph.conf which client.USER needs to find the cluster, all but keyrings and logs.

    Values are kept as they are written. A monitor that does not answer is an error after CONNECT seconds.
    """
    sections: dict[str, list[str]] = {"global": [], "client": [], f"client.{user}": []}
    section = ""
    for line in text.replace("\\\n", " ").splitlines():
        if match := _SECTION.match(line):
            section = match[1].strip()
        elif (match := _OPTION.match(line)) and not _LEFT_OUT.search(re.sub("[ -]+", "_", match[1].lower())):
            sections.get(section, []).append(f"{match[1]} = {match[2].strip()}")
    sections[f"client.{user}"].append(f"client_mount_timeout = {CONNECT}")
    return "\n".join(_written(sections))


def _written(sections: dict[str, list[str]]) -> Iterator[str]:
    yield "# Made by uncloud-host out of UNCLOUD_CEPH_CONF, for QEMU; changes are overwritten."
    for name, options in sections.items():
        if options:
            yield from (f"[{name}]", *options)
    yield ""


def key(text: str, user: str) -> str | None:
    """Find the key of client.USER in a keyring, base64 as it stands there; None if there is none."""
    section = ""
    for line in text.splitlines():
        if match := _SECTION.match(line):
            section = match[1].strip()
        elif section == f"client.{user}" and (match := _OPTION.match(line)) and match[1].lower() == "key":
            found = match[2].strip().strip('"')
            return found if _is_base64(found) else None
    return None


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
