"""A console on a terminal, the pure part: what the keyboard says, and the packets of a relay (see libexec/relay)."""

from enum import StrEnum
from typing import NamedTuple

ESCAPE = b"\x1d"  # Ctrl-], as with telnet and virsh
ESCAPE_NAME = "Ctrl-]"


class Kind(StrEnum):
    """What a packet of a relay is. Others are of a newer version, and mean nothing to us."""

    HELLO = "h"
    OUTPUT = "o"
    NOTE = "n"
    ALL_TYPED = "i"
    END = "e"
    UNKNOWN = "?"


class Packet(NamedTuple):
    """One packet of a relay."""

    kind: Kind
    data: bytes

    @property
    def text(self) -> str:
        """What it says, if it is for people."""
        return self.data.decode(errors="replace")


def packet(raw: bytes) -> Packet:
    """Read a packet; an empty one means that the relay is gone, and is none."""
    letter = chr(raw[0])
    return Packet(Kind(letter) if letter in set(Kind) else Kind.UNKNOWN, raw[1:])


def until_escape(data: bytes) -> tuple[bytes, bool]:
    """Split what was typed on a terminal: what is for the guest, and whether the key to detach came."""
    before, escape, _ = data.partition(ESCAPE)
    return before, bool(escape)
