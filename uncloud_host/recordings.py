"""The flight recorders of VMs, followed while they run: QEMU writes its events into a file, inotify says when.

No monitor socket is taken for this: those have room for one client, who may be a person. The library that Debian has
for inotify remembers a path for ever, and then takes no second file of that name: so the three calls are made here.
"""

import ctypes
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from uncloud_host import names
from uncloud_host.signs import Sign, of_interest, signs
from uncloud_host.trimming import trim

FILE = b"events.json"
LIMIT = 1 << 20  # bytes read at a time, and of a file that is there already
MOST = 16 << 20  # bytes of a file that may be in memory before the host gets them back
_IN_MODIFY, _IN_CREATE, _IN_DELETE, _IN_Q_OVERFLOW, _IN_IGNORED = 0x2, 0x100, 0x200, 0x4000, 0x8000
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name


@dataclass(slots=True)
class _Recording:
    uuid: str
    invocation: str
    file: int = -1
    rest: bytes = b""  # a line that is not complete yet
    trimmed: int = 0  # its size when the host last got something back

    def read(self) -> list[Sign]:
        """Read what has been added; not all of it if it is more than can be read."""
        if self.file < 0:
            self.file = _open(self.uuid)
        new = self.size() - os.lseek(self.file, 0, os.SEEK_CUR) if self.file >= 0 else 0
        if new > LIMIT:
            os.lseek(self.file, -LIMIT, os.SEEK_END)
            self.rest = b""
        # Not LIMIT: after that is allocated and freed once, malloc gives nothing below twice of it back (mallopt(3)).
        data = os.read(self.file, min(new, LIMIT)) if new > 0 else b""
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[-LIMIT:]
        return signs(of_interest(lines))

    def size(self) -> int:
        return os.fstat(self.file).st_size if self.file >= 0 else 0

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)


class Recordings:
    """Those of the VMs that run on this host. `told` is called, in any thread, with uuid, invocation and signs."""

    def __init__(self, told: Callable[[str, str, list[Sign]], None]) -> None:
        self._told = told
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = self._libc.inotify_init1(os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._lock = threading.Lock()
        self._recordings: dict[int, _Recording] = {}

    def follow(self, uuid: str, invocation: str) -> None:
        """Begin to follow a run, from its beginning: nothing is lost between two agents. It may be gone already."""
        with self._lock:
            path = names.runtime_directory(uuid).encode()
            watch = self._libc.inotify_add_watch(self._inotify, path, _IN_MODIFY | _IN_CREATE | _IN_DELETE)
            known = self._recordings.get(watch)
            if watch < 0 or (known and known.invocation == invocation):
                return
            if known:
                known.close()
            recording = self._recordings[watch] = _Recording(uuid, invocation)
            self._look(recording)

    def run(self) -> None:
        """Wait for what QEMUs say: body of a thread."""
        while True:
            data = os.read(self._inotify, 1 << 16)
            with self._lock:
                changed = set(self._changed(data))
                watches = self._recordings if -1 in changed else changed & self._recordings.keys()
                for watch in watches:
                    self._look(self._recordings[watch])
                grown = [one for one in map(self._recordings.get, watches) if one and one.size() - one.trimmed >= MOST]
            for recording in grown:  # its recorder reads the last LIMIT
                size = recording.size()
                if trim(recording.uuid, FILE.decode(), size - LIMIT):
                    recording.trimmed = size

    def _changed(self, data: bytes) -> Iterator[int]:
        """List the watches whose file has changed; -1: any may have."""
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            # The run is over. Its directory is not gone, nor is the watch, as long as we have the file in it open.
            if mask & _IN_IGNORED or (mask & _IN_DELETE and name == FILE):
                if recording := self._recordings.pop(watch, None):
                    self._look(recording)
                    recording.close()
            elif mask & _IN_Q_OVERFLOW:
                yield -1
            elif name == FILE:
                yield watch

    def _look(self, recording: _Recording) -> None:
        with suppress(OSError):
            if found := recording.read():
                self._told(recording.uuid, recording.invocation, found)


def _open(uuid: str) -> int:
    """Open a recording; -1 if it is not there, or is no file: the directory is the VM's own."""
    path = f"{names.runtime_directory(uuid)}/{FILE.decode()}"
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return -1
