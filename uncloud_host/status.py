"""Ask PID 1 how units of VMs stand, by `systemctl`: it needs no bus, at any hour, and any thread may ask."""

import subprocess
from collections.abc import Iterable

from uncloud_host import shown, unit
from uncloud_host.shown import Shown

ANSWER = 5.0  # seconds


def look(uuids: Iterable[str]) -> dict[str, Shown]:
    """Tell of each VM how its unit stands; nothing of those that could not be asked about."""
    names = [unit.name(uuid) for uuid in uuids]
    words = ["systemctl", "show", "--timestamp=us+utc", f"--property={','.join(shown.PROPERTIES)}", "--", *names]
    if not names:
        return {}
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=ANSWER, check=True)  # noqa: S603 - our words
    except (OSError, subprocess.SubprocessError):
        return {}
    return {found.uuid: found for found in shown.read(done.stdout)}
