"""rfb.py ADDRESS [PASSWORD]: look at a VNC screen once; a program for hosts, with nothing but Python and openssl.

Prints JSON: {"size": [width, height], "colours": how many, "security": 1 or 2}, or {"refused": "why"}.
ADDRESS is a path or HOST:PORT.
"""

import json
import socket
import struct
import subprocess
import sys

NONE, PASSWORD = 1, 2  # kinds of security


class Refused(Exception):
    pass


class Stream:
    """Reads all that was asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self.write, self._read = connection.sendall, connection.recv

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            if not (more := self._read(size - len(found))):
                raise Refused("it hung up")
            found += more
        return found


def connected(address: str) -> socket.socket:
    if address.startswith("/"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=20)


def numbers(stream: Stream, form: str) -> tuple[int, ...]:
    return struct.unpack(f">{form}", stream.read(struct.calcsize(f">{form}")))


def text(stream: Stream) -> str:
    return stream.read(numbers(stream, "I")[0]).decode().rstrip("\0")  # QEMU sends the end of its string, too


def encrypted(challenge: bytes, password: str) -> bytes:
    """DES, whose key has the bits of each byte turned round. Not every openssl has it, but all have it thrice in a row,
    which with one key is once."""
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password.encode()[:8].ljust(8, b"\0"))
    words = ["openssl", "enc", "-des-ede3", "-nopad", "-K", (key * 3).hex()]
    return subprocess.run(words, input=challenge, stdout=subprocess.PIPE, check=True).stdout


def authenticate(stream: Stream, password: str) -> int:
    offered = stream.read(numbers(stream, "B")[0])
    if not offered:
        raise Refused(text(stream))
    kind = PASSWORD if password else NONE
    if kind not in offered:
        raise Refused(f"it wants security of kind {list(offered)}")
    stream.write(bytes([kind]))
    if password:
        stream.write(encrypted(stream.read(16), password))
    if numbers(stream, "I")[0]:
        raise Refused(text(stream))
    return kind


def look(stream: Stream, password: str) -> dict[str, object]:
    stream.write(stream.read(12))  # the version that it offers: 3.8
    kind = authenticate(stream, password)
    stream.write(b"\1")  # shared with other clients
    width, height, bits, *_ = numbers(stream, "HHBBBBHHHBBB3x")
    text(stream)  # its name
    stream.write(struct.pack(">BxHi", 2, 1, 0))  # send it raw
    stream.write(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    pixels, seen = set(), 0
    while seen < width * height:
        (message,) = numbers(stream, "B")
        assert message == 0, f"message {message} is none about the screen"
        for _ in range(numbers(stream, "xH")[0]):
            _, _, w, h, encoding = numbers(stream, "HHHHi")
            assert encoding == 0
            raw = stream.read(w * h * bits // 8)
            pixels |= set(struct.iter_unpack(f"{bits // 8}s", raw))
            seen += w * h
    return {"size": [width, height], "colours": len(pixels), "security": kind}


def main(address: str, password: str = "") -> dict[str, object]:
    with connected(address) as connection:
        return look(Stream(connection), password)


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])))
    except Refused as refused:
        print(json.dumps({"refused": str(refused)}))
