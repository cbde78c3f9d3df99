"""Ceph: the files with which QEMU opens rbd images, and who has one open. The only module that runs `rbd` and `ceph`.

QEMU gets a conf of our own, because Ceph's defaults make it hang for minutes when no monitor answers, and the key as
text, because that is what a QEMU secret is. Both lie in /run and stay there, so that systemd can restart a VM when the
agent or the package is gone.
"""

import errno
import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

from uncloud_host import cephfiles
from uncloud_host.config import Ceph
from uncloud_host.drives import CEPH_CONF, CEPH_KEY

ANSWER = cephfiles.CONNECT + 5.0  # seconds; OSDs that are dead refuse nothing, they are silent
# Seconds that a client stays refused: Ceph's own hour is shorter than a cable may be out. The address of a client is
# never used again, so it may be long.
BLOCKED = 30 * 86400
_SILENT = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ECONNREFUSED, errno.ENOTCONN)
_DENIED = (errno.EPERM, errno.EACCES)


class Problem(Exception):
    """Something is wrong that does not become right by waiting; the message is one line."""


class Silent(Exception):
    """Ceph does not answer; the message is one line."""


def prepare(access: Ceph) -> None:
    """Make sure that QEMU finds conf and key as the administrator's files have them now. Raises Problem."""
    text, keyring = _read("CONF", access.conf), _read("KEYRING", access.keyring)
    key = cephfiles.key(keyring, access.user)
    if key is None:
        raise Problem(f"UNCLOUD_CEPH_KEYRING: {access.keyring} has no key of client.{access.user}")
    _keep(CEPH_CONF, cephfiles.conf(text, access.user), 0o644)
    _keep(CEPH_KEY, key, 0o600)


def watchers(access: Ceph, pool: str, namespace: str, image: str) -> list[str]:
    """List who has an image open, like "10.0.0.7 (client.4123)". Takes ANSWER seconds at most; raises Problem, Silent.

    A client that died without a word is in the list for 30 s: Ceph's watch timeout.
    """
    told = _run(access, "rbd", "status", "--format=json", *_image(pool, namespace, image))
    try:
        found = json.loads(told)["watchers"]
        return [f"{one['address'].rpartition(':')[0]} (client.{one['client']})" for one in found]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Problem(f"expected a list of watchers from rbd, got {told.strip()[:80]!r}") from None


def clients(access: Ceph, pool: str, namespace: str, image: str) -> list[str]:
    """List the addresses of those who have an image open, or its lock, like "10.0.0.7:0/3412". Raises as `watchers`.

    The lock of a client that died stays until another one breaks it; an image without exclusive-lock has none.
    """
    words = _image(pool, namespace, image)
    status = _run(access, "rbd", "status", "--format=json", *words)
    locks = _run(access, "rbd", "lock", "ls", "--format=json", *words)
    try:
        found = [*json.loads(status)["watchers"], *json.loads(locks)]
        return sorted({str(one["address"]) for one in found})
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Problem(f"expected watchers and locks from rbd, got {status.strip()[:80]!r}, {locks!r:.80}") from None


def block(access: Ceph, address: str) -> None:
    """Have Ceph refuse a client from now on, whatever it still wants to write. Raises as `watchers`."""
    _run(access, "ceph", "osd", "blocklist", "add", address, str(BLOCKED))


def _image(pool: str, namespace: str, image: str) -> list[str]:
    return [f"--pool={pool}", *([f"--namespace={namespace}"] if namespace else []), f"--image={image}"]


def _run(access: Ceph, program: str, *words: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our words; the names are one word each
            [program, f"--conf={CEPH_CONF}", f"--name=client.{access.user}", f"--keyfile={CEPH_KEY}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER,
            text=True,
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Silent(f"no answer within {ANSWER:g} s") from None
    except OSError as error:
        raise Problem(f"cannot run {program}, of the package ceph-common: {error.strerror}") from None
    if done.returncode:
        _raise(access, done.returncode, done.stderr)
    return done.stdout


def _raise(access: Ceph, status: int, said: str) -> None:
    """Turn rbd's exit status, which is an errno, and its last words into an exception."""
    if status in _SILENT:
        raise Silent(os.strerror(status))
    if status in _DENIED:
        raise Problem(f"{os.strerror(status)} for client.{access.user} with the key in {access.keyring}")
    lines = said.strip().splitlines() or [os.strerror(status)]
    raise Problem(lines[-1].removeprefix("rbd: "))


def _read(variable: str, path: str) -> str:
    try:
        return Path(path).read_text(errors="surrogateescape")
    except OSError as error:
        raise Problem(f"UNCLOUD_CEPH_{variable}: {path}: {error.strerror}") from None


def _keep(path: str, content: str, mode: int) -> None:
    """Write a file if it is not as it should be; whoever reads it meanwhile sees the old one or the new one."""
    file, wanted = Path(path), content.encode(errors="surrogateescape")
    with suppress(OSError):
        if file.read_bytes() == wanted and file.stat().st_mode & 0o7777 == mode:
            return
    new = Path(f"{path}.new")
    try:
        new.unlink(missing_ok=True)  # of an agent that died here
        new.touch(0o600, exist_ok=False)
        new.write_bytes(wanted)
        new.chmod(mode)
        new.rename(file)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror}") from None
