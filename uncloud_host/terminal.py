"""A terminal, or what stands for it, on the console of a VM: raw while it is attached, as before at every end.

The guest's output is read from the relay only as fast as standard output takes it; the relay drops what is too much.
The keyboard is always read, so that the key to detach works whatever the guest does.
"""

import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from types import FrameType
from typing import NoReturn

from uncloud_host.console import Kind, packet, until_escape
from uncloud_host.events import clean

STDIN, STDOUT = 0, 1
CHUNK = 4096  # bytes: what a packet and a write have at most
PIPED = 64 << 10  # bytes read ahead from a pipe
PASTED = 1 << 20  # bytes read ahead from a keyboard; more is dropped
SILENT, AT_MOST = 1.0, 10.0  # seconds that we go on after the end of standard input: until the guest is silent
ENDINGS = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)


class Result(Enum):
    """How it ended."""

    DETACHED = auto()  # by the key, or because standard input is at its end
    OVER = auto()  # the relay says that there is no more
    LOST = auto()  # the relay is gone


@contextmanager
def attached() -> Iterator[bool]:
    """Make standard input raw if it is a terminal, which is yielded, and restore it however this ends.

    Signals that would end us raise SystemExit instead, also out of a write that does not come to an end.
    """
    before = termios.tcgetattr(STDIN) if os.isatty(STDIN) else None

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    def pause(_number: int, _frame: FrameType | None) -> None:
        _restore(before)
        os.kill(os.getpid(), signal.SIGSTOP)

    def go_on(_number: int, _frame: FrameType | None) -> None:
        if before:
            tty.setraw(STDIN, termios.TCSANOW)  # whoever stopped us has used the terminal

    handlers: dict[int, Callable[[int, FrameType | None], None]] = {signal.SIGTSTP: pause, signal.SIGCONT: go_on}
    handlers |= dict.fromkeys(ENDINGS, end)
    old = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        go_on(0, None)
        yield before is not None
    finally:
        for number in handlers:
            signal.signal(number, signal.SIG_IGN)
        _restore(before)
        for number, was in old.items():
            signal.signal(number, was)


def _restore(before: "list[int | list[bytes | int]] | None") -> None:
    if before:
        with suppress(termios.error):  # its window is closed
            termios.tcflush(STDIN, termios.TCIFLUSH)  # the rest of a paste is not for the shell
            termios.tcsetattr(STDIN, termios.TCSANOW, before)  # not later: output may be stuck


def say(text: str, *, raw: bool) -> None:
    """Tell something that the guest does not say."""
    end = "\r\n" if raw else "\n"
    print(f"{end if raw else ''}[{clean(text)}]", end=end, file=sys.stderr, flush=True)


@dataclass
class Session:
    """Between standard input and output and one connection to a relay."""

    connection: socket.socket
    is_terminal: bool
    typed: bytearray = field(default_factory=bytearray)
    shown: bytes = b""
    is_open: bool = True  # there may be more on standard input
    until: float | None = None  # all that was read has reached the guest: when to leave at last

    def run(self) -> tuple[Result, str]:
        """Go on until one side has had enough; say which, and why. Raises OSError of standard output."""
        self.connection.settimeout(0)
        while True:
            waiting = self._waiting()
            left = None if self.until is None else min(SILENT, self.until - time.monotonic())
            ready = {} if left is not None and left < 0 else dict(waiting.poll(None if left is None else left * 1000))
            if not ready:
                return Result.DETACHED, ""
            if STDIN in ready and not self._read():
                with suppress(OSError):
                    self._send()
                return Result.DETACHED, ""
            if STDOUT in ready:
                with suppress(BlockingIOError):  # whoever shares it has made it so
                    self.shown = self.shown[os.write(STDOUT, self.shown[:CHUNK]) :]
            what = ready.get(self.connection.fileno(), 0)
            try:
                if what & select.POLLOUT:
                    self._send()
                if what & ~select.POLLOUT and not self.shown and (end := self._receive()):
                    return end
            except BlockingIOError:
                pass
            except OSError:
                return Result.LOST, ""

    def _waiting(self) -> select.poll:
        waiting = select.poll()
        if self.is_open and (self.is_terminal or len(self.typed) < PIPED):
            waiting.register(STDIN, select.POLLIN)
        if self.shown:
            waiting.register(STDOUT, select.POLLOUT)
        wants = (0 if self.shown else select.POLLIN) | (select.POLLOUT if self.typed else 0)
        if wants:
            waiting.register(self.connection, wants)
        return waiting

    def _read(self) -> bool:
        """Read what was typed; False if that means to detach. Raises SystemExit if the terminal is gone."""
        try:
            data = os.read(STDIN, PIPED)
        except OSError:
            data = b""
        if self.is_terminal:
            if not data:
                raise SystemExit(128 + signal.SIGHUP)
            data, detach = until_escape(data)
            if len(self.typed) + len(data) > PASTED:
                say("... input dropped, the guest does not read ...", raw=True)
            else:
                self.typed += data
            return not detach
        self.typed += data
        self.is_open = bool(data)
        if not self.is_open and not self.typed:
            self._end_typing()
        return True

    def _send(self) -> None:
        del self.typed[: self.connection.send(self.typed[:CHUNK]) if self.typed else 0]
        if not self.is_open and not self.typed:
            self._end_typing()

    def _end_typing(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def _receive(self) -> tuple[Result, str] | None:
        raw = self.connection.recv(PIPED)
        if not raw:
            return Result.LOST, ""
        match packet(raw):
            case (Kind.OUTPUT, data):
                self.shown = data
            case (Kind.NOTE, _) as note:
                say(note.text, raw=self.is_terminal)
            case (Kind.ALL_TYPED, _):
                self.until = time.monotonic() + AT_MOST
            case (Kind.END, _) as end:
                return (Result.OVER if self.until is None else Result.DETACHED), end.text
        return None
