"""A flight recorder's file is in memory, and a guest can make QEMU write into it without end: what has been read of it
is given back to the host.

QEMU writes on where it was, so the file is punched, not cut. The agent may not write to it; a unit that is the VM's own
user may, and nothing else: what has the file's name in the VM's own directory may be a link to anything.
"""

import subprocess
from contextlib import suppress

from uncloud_host import names

ANSWER = 10.0  # seconds for systemd to take the job; nobody waits for its end


def trim(uuid: str, file: str, size: int) -> bool:
    """Give back the first `size` bytes; False if that is not under way, perhaps because the time before still is."""
    directory = names.runtime_directory(uuid)
    words = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--no-block",
        f"--unit=uncloud-host-trim-{uuid}",
        "--property=DynamicUser=yes",  # of one name they have one uid
        f"--property=User={names.user(uuid)}",
        f"--property=ReadWritePaths=-{directory}",
        "--property=PrivateDevices=yes",
    ]
    words += ["fallocate", "--punch-hole", f"--length={size}", f"{directory}/{file}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(words, capture_output=True, timeout=ANSWER, check=False)  # noqa: S603 - our words
        return done.returncode == 0
    return False
