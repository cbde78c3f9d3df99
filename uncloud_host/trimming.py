"""A flight recorder's file is in memory, and a guest can make QEMU write into it without end: what has been read of it
is given back to the host.

QEMU writes on where it was, so the file is punched, not cut. The agent may not write to it; a unit of its own may write
there and nowhere else, for what has its name in the VM's own directory may be a link.
"""

import subprocess
from contextlib import suppress

from uncloud_host import names

ANSWER = 10.0  # seconds for systemd to take the job


def trim(uuid: str, file: str, size: int) -> None:
    """Give back the first `size` bytes; if that fails, there is a next time."""
    directory = names.runtime_directory(uuid)
    words = [
        "systemd-run",
        "--quiet",
        "--collect",
        "--no-block",
        f"--unit=uncloud-host-trim-{uuid}",
        "--property=CapabilityBoundingSet=CAP_DAC_OVERRIDE",
        "--property=ProtectSystem=strict",
        f"--property=ReadWritePaths=-{directory}",
        "--property=PrivateDevices=yes",
        "--property=NoNewPrivileges=yes",
    ]
    words += ["fallocate", "--punch-hole", f"--length={size}", f"{directory}/{file}"]
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(words, capture_output=True, timeout=ANSWER, check=False)  # noqa: S603 - our words
