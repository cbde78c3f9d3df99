"""The command that attaches a terminal to the serial console of a VM, by way of a relay: see libexec/relay.

The relay is a service, so it is not in the terminal's session: whatever happens to the terminal, it goes on reading.
"""

import os
import socket
import subprocess
import time
from argparse import Namespace
from contextlib import suppress

from uncloud_host import unit
from uncloud_host.console import ESCAPE_NAME
from uncloud_host.looking import label
from uncloud_host.snapshot import Snapshot, Wrong
from uncloud_host.systemd import SystemdError
from uncloud_host.terminal import Result, Session, attached, say

SOCKETS = "/run/uncloud-host/console"
STARTING = 20.0  # seconds until a relay must have said hello
PAUSE = 0.1
AGAIN = 10.0  # seconds from the end of one relay to that of the next, or no more are started


def console(arguments: Namespace, now: Snapshot) -> int:
    """Attach to a console until the key to detach, the end of standard input, or the end of the VM."""
    if os.geteuid() != 0:
        raise Wrong("console: expected to be run by root: it types on the console")
    uuid, name = now.running(arguments.vm)
    if arguments.lines:
        _show_last(uuid, arguments.lines)
    connection = _attach(uuid)
    say(f"attached to the console of {label(uuid, name)}; {ESCAPE_NAME} detaches", raw=False)
    lost = -AGAIN
    while True:
        with connection, attached() as is_terminal:
            result, why = Session(connection, is_terminal).run()
        if is_terminal:
            print()  # the guest has left the cursor somewhere
        if result != Result.LOST:
            say("detached" if result == Result.DETACHED else why, raw=False)
            return 0 if result == Result.DETACHED else 1
        if time.monotonic() - lost < AGAIN:
            raise SystemdError(f"the relay has ended; see journalctl -u {_relay(uuid)}")
        lost = time.monotonic()
        say("the relay has ended, another one is started; what the guest says now is in the journal", raw=False)
        connection = _attach(uuid)


def _relay(uuid: str) -> str:
    return f"uncloud-host-console@{uuid}.service"


def _attach(uuid: str) -> socket.socket:
    """Connect to the relay; start it if there is none, or if it is just ending. Raises SystemdError."""
    end = time.monotonic() + STARTING
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.settimeout(STARTING)
        with suppress(OSError):
            connection.connect(f"{SOCKETS}/{uuid}.sock")
            if connection.recv(256):
                return connection
        connection.close()
        _start(uuid)
        time.sleep(PAUSE)
    raise SystemdError(f"the relay does not answer; see journalctl -u {_relay(uuid)}")


def _start(uuid: str) -> None:
    """Let systemd start the relay, one for each VM however many ask. Raises SystemdError."""
    words = ["systemctl", "start", _relay(uuid)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=STARTING, check=False)  # noqa: S603 - our words
    except (OSError, subprocess.SubprocessError) as error:
        raise SystemdError(f"systemctl: {error}") from error
    if done.returncode:
        raise SystemdError(" ".join(done.stderr.split()))


def _show_last(uuid: str, lines: int) -> None:
    """Print the last of the guest's and QEMU's words in the journal."""
    words = ["journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={lines}"]
    with suppress(OSError):
        subprocess.run([*words, f"_SYSTEMD_UNIT={unit.name(uuid)}", "SYSLOG_IDENTIFIER=qemu"], check=False)  # noqa: S603
