"""What is wrong with etcd, in one line for a sysadmin.

gRPC says "failed to connect to all addresses" for a refused port, an untrusted certificate, a wrong name and a TLS port
addressed without TLS alike. So after a failed connection one more is made with the standard library, and its error is
the one that is told. Pure standard library: gRPC's codes come in as words.
"""

import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Problem = Literal["unreachable", "denied", "compacted", "too-big", "full", "setup", "closed", "other"]

SYSTEM_CA = "/etc/ssl/certs/ca-certificates.crt"
# The first bytes of every HTTP/2 connection, with an empty SETTINGS frame. A gRPC server answers with its own.
HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
HTTP2_SETTINGS = 4
PROBE_SECONDS = 2.0

# (words in etcd's answer, problem, what we say), first match wins. {what} is the key or keys of the call.
SAYINGS: Sequence[tuple[str, Problem, str]] = (
    ("permission denied", "denied", "permission denied on {what}"),
    ("authentication failed", "denied", "authentication failed: wrong user name or password"),
    ("user name is empty", "denied", "etcd asks for a user name and password"),
    ("invalid auth token", "denied", "etcd does not accept the token it gave us"),
    ("revision of auth store is old", "denied", "etcd does not accept the token it gave us"),
    ("has been compacted", "compacted", "the history of {what} was compacted away"),
    ("is a future revision", "compacted", "the asked revision of {what} is not there any more"),
    ("database space exceeded", "full", "out of space: compact and defragment etcd, then disarm its NOSPACE alarm"),
    ("request is too large", "too-big", "the value of {what} is larger than etcd takes (--max-request-bytes)"),
    ("no leader", "unreachable", "has no leader: too few members are up"),
    ("request timed out", "unreachable", "could not complete the request in time: too few members are up, or slow"),
    ("leader changed", "unreachable", "changed its leader during the request"),
)


@dataclass(frozen=True, slots=True)
class Position:
    """Where etcd's history stands. A wiped etcd can have the same cluster id again, so all three count."""

    revision: int
    cluster: int
    term: int

    def follows(self, known: "Position") -> bool:
        """Tell whether this is the same history as `known`, at that point or later."""
        return self.cluster == known.cluster and self.revision >= known.revision and self.term >= known.term


@dataclass(frozen=True, slots=True)
class Access:
    """Where etcd is and who we are there."""

    endpoints: tuple[str, ...]
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    user: str | None = None
    password_file: str | None = None


class EtcdError(Exception):
    """One line that names the endpoint and what is wrong; `problem` is the same for programs."""

    def __init__(self, message: str, problem: Problem = "other") -> None:
        super().__init__(message)
        self.problem: Problem = problem

    @property
    def is_about_all(self) -> bool:
        """Tell whether this meets every key alike."""
        return self.problem in ("unreachable", "closed", "setup")


def address(endpoint: str) -> tuple[bool, str, int]:
    """Split an endpoint into (TLS or not, host, port)."""
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if host is None or port is None or url.scheme not in ("http", "https") or url.path not in ("", "/"):
        msg = f"etcd {endpoint}: not an endpoint, expected http://HOST:PORT or https://HOST:PORT"
        raise EtcdError(msg, "setup")
    return url.scheme == "https", host, port


def explain(code: str, details: str, *, what: str, seconds: float) -> tuple[Problem, str]:
    """Put gRPC's status code and etcd's own words into ours."""
    for words, problem, saying in SAYINGS:
        if words in details:
            return problem, saying.format(what=what)
    if code == "DEADLINE_EXCEEDED":
        return "unreachable", f"no answer within {seconds:g} s"
    if code == "RESOURCE_EXHAUSTED":
        return "too-big", f"the answer for {what} is too big"
    if code in ("UNAVAILABLE", "CANCELLED"):
        return "unreachable", "connection lost"
    lines = details.removeprefix("etcdserver: ").splitlines()
    text = (lines[0] if lines else "") or code.lower().replace("_", " ")
    return ("unreachable" if code in ("INTERNAL", "UNKNOWN") else "other"), text


def unreadable(access: Access) -> str | None:
    """Name the first TLS file that cannot be read."""
    for path in (access.ca or SYSTEM_CA, access.cert, access.key):
        if path is None:
            continue
        try:
            with Path(path).open("rb"):
                pass
        except OSError as error:
            return f"cannot read {path}: {reason(error)}"
    if (access.cert is None) != (access.key is None):
        return "a client certificate needs its key, and a key its certificate: only one of the two is set"
    return None


def diagnose(endpoint: str, access: Access) -> str | None:
    """Connect once without gRPC and say what stands in the way; None if nothing does by now."""
    tls, host, port = address(endpoint)
    try:
        context = _context(access) if tls else None
    except (ssl.SSLError, OSError) as error:
        return f"cannot use the CA, certificate or key: {_words(error)}"
    try:
        if _hello(host, port, context):
            return None
        if not tls and _hello(host, port, _careless_context()) is not None:
            return "this port speaks TLS: write https:// instead of http://"
    except ssl.SSLCertVerificationError as error:
        return f"certificate not trusted: {error.verify_message.rstrip('.')}"
    except (ssl.SSLError, ConnectionResetError) as error:
        if tls and _speaks_plainly(host, port):
            return "this port speaks no TLS: write http:// instead of https://"
        return _alert(error)
    except UnicodeError:
        return f"unknown host name: {host}"
    except OSError as error:
        return reason(error)
    return "connects, but does not answer as etcd"


def reason(error: OSError) -> str:
    """Return the words of an OSError without its number."""
    if isinstance(error, TimeoutError):
        return f"no answer within {PROBE_SECONDS:g} s"
    if isinstance(error, socket.gaierror):
        return f"unknown host name: {error.strerror}"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _context(access: Access) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=access.ca or SYSTEM_CA)
    # Python 3.13 became stricter here than gRPC is, and would tell of a flaw that is not what stands in the way.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["h2"])
    if access.cert is not None:
        context.load_cert_chain(access.cert, access.key)
    return context


def _careless_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _hello(host: str, port: int, context: ssl.SSLContext | None) -> bool | None:
    """Say hello; True if a gRPC server greets back, None if not even TLS came about.

    Waiting for the greeting matters: under TLS 1.3 a refused client certificate shows only at the first read.
    """
    with socket.create_connection((host, port), timeout=PROBE_SECONDS) as plain:
        if context is None:
            try:
                plain.sendall(HTTP2_HELLO)
                return _greets(plain.recv(9))
            except ConnectionError:
                return False
        if context.verify_mode == ssl.CERT_NONE:
            try:
                context.wrap_socket(plain).close()
            except (ssl.SSLError, OSError) as error:
                # A server that wants our certificate, or sends any alert at all, does speak TLS.
                return False if "ALERT" in str(getattr(error, "reason", "")) else None
            return True
        with context.wrap_socket(plain, server_hostname=host) as secure:
            secure.sendall(HTTP2_HELLO)
            return _greets(secure.recv(9))


def _greets(answer: bytes) -> bool:
    return len(answer) == 9 and answer[3] == HTTP2_SETTINGS  # noqa: PLR2004


def _speaks_plainly(host: str, port: int) -> bool:
    try:
        return bool(_hello(host, port, None))
    except OSError:
        return False


def _alert(error: OSError) -> str:
    words = _words(error)
    if any(alert in words for alert in ("certificate required", "bad certificate", "unknown ca", "handshake failure")):
        return f"etcd does not accept our client certificate ({words})"
    return f"TLS failed: {words}"


def _words(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error).lower().replace("_", " ")
