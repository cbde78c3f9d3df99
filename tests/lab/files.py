"""Files into and out of a host, seen from the machine.

Always by a program whose root is the host's: absolute links there must not lead to the machine's own files.
"""

import subprocess
from pathlib import Path

from .machine import ENVIRONMENT, LabError

PUT = 'mkdir -p "$(dirname "$1")" && cat > "$1" && chmod "$2" "$1"'
UNPACK = 'mkdir -p "$1" && tar -x -C "$1"'


def push(root: Path, source: Path | str | bytes, destination: str, mode: int | None) -> None:
    """Copy a file or directory (Path) or contents (str, bytes) to a path below root; see Host.push."""
    if isinstance(source, Path) and source.is_dir():
        archive = subprocess.run(["tar", "-c", "-C", source, "."], stdout=subprocess.PIPE, check=True).stdout
        _inside(root, ["/bin/sh", "-c", UNPACK, "push", destination], archive)
        return
    if isinstance(source, Path):
        mode = source.stat().st_mode & 0o7777 if mode is None else mode
        content = source.read_bytes()
    else:
        content = source.encode() if isinstance(source, str) else source
    _inside(root, ["/bin/sh", "-c", PUT, "push", destination, f"{0o644 if mode is None else mode:o}"], content)


def pull(root: Path, path: str) -> bytes:
    """The contents of a file below root."""
    return _inside(root, ["cat", "--", path], b"")


def _inside(root: Path, command: list[str], content: bytes) -> bytes:
    words = ["chroot", str(root), *command]
    done = subprocess.run(words, input=content, capture_output=True, check=False, env=ENVIRONMENT, cwd="/")
    if done.returncode:
        raise LabError(f"{root}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
