"""One connection to one endpoint of etcd: made, found to be alive, and authenticated."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from uncloud_host.etcd3compat import etcd3
from uncloud_host.etcd3compat import messages as pb
from uncloud_host.etcderror import SYSTEM_CA, Access, EtcdError, address, diagnose, explain, unreadable

# A stopped or cut off server still accepts TCP connections (its kernel does) but never speaks.
CONNECT_SECONDS = 2.0
CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),  # etcd closes connections that ping more often than each 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # newer grpcio: keepalive_timeout alone leaves it at 60 s
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 << 20),  # 4 MiB is too little for lists and for a watch that catches up
    ("grpc.use_local_subchannel_pool", 1),  # a channel opened again is a new connection, not the dead one
    ("grpc.enable_retries", 0),
    # How long it waits for a server that accepts and says nothing: less than we do. A channel that is closed while it
    # waits keeps its socket for ever, if the server speaks after all (1.51).
    ("grpc.min_reconnect_backoff_ms", 1_500),
]

# Whoever waits in grpcio (1.51 to 1.85) wakes up ten times a second to see that nothing happened: half of what an idle
# agent costs. Answers end the wait at once, whatever this is. Private, and only touched where it is what we know.
if getattr(grpc._common, "MAXIMUM_WAIT_TIMEOUT", None) == 0.1:  # noqa: PLR2004, SLF001
    grpc._common.MAXIMUM_WAIT_TIMEOUT = 2.0  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Session:
    """One connection to one endpoint, and the token that is valid there."""

    endpoint: str
    client: Any
    metadata: tuple[tuple[str, str], ...] = ()


def connect(endpoint: str, access: Access, *, timeout: float) -> Session:
    """Connect, or raise EtcdError with the true reason why not."""
    tls, host, port = address(endpoint)
    if tls and (complaint := unreadable(access)):
        msg = f"etcd {endpoint}: {complaint}"
        raise EtcdError(msg, "setup")
    # The files are read at every connection: renewed certificates need no restart.
    files = {"ca_cert": access.ca or SYSTEM_CA, "cert_cert": access.cert, "cert_key": access.key}
    host = f"[{host}]" if ":" in host else host
    client = etcd3.client(host, port, grpc_options=CHANNEL_OPTIONS, **(files if tls else {}))
    try:
        _ping(client)
        return Session(endpoint, client, authenticate(client, access, timeout=timeout))
    except EtcdError:  # grpcio keeps a forgotten channel, and its connection
        client.close()
        raise
    except grpc.RpcError as error:
        client.close()
        code, details = status(error)
        problem, saying = explain(code, details, what=endpoint, seconds=CONNECT_SECONDS)
        if code == "UNAVAILABLE":
            saying = diagnose(endpoint, access) or saying
        msg = f"etcd {endpoint}: {saying}"
        raise EtcdError(msg, problem) from None


def authenticate(client: Any, access: Access, *, timeout: float) -> tuple[tuple[str, str], ...]:
    """Return a new token as metadata: as call credentials grpcio refuses it without TLS."""
    if access.user is None:
        return ()
    # Read each time, as certificates are: a changed password needs no restart.
    request = pb.AuthenticateRequest(name=access.user, password=_password(access))
    try:
        token = pb.AuthStub(client.channel).Authenticate(request, timeout=timeout).token
    except grpc.RpcError as error:
        if "authentication is not enabled" in status(error)[1]:
            return ()
        raise
    return (("token", token),)


def _password(access: Access) -> str:
    try:
        return Path(access.password_file or "/dev/null").read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "expected UTF-8"
        msg = f"etcd: cannot read the password in {access.password_file}: {why}"
        raise EtcdError(msg, "setup") from None


def _ping(client: Any) -> None:
    """Find out whether anybody answers at all: any answer but silence will do, "permission denied" as well."""
    try:
        client.kvstub.Range(pb.RangeRequest(key=b"\0", serializable=True), timeout=CONNECT_SECONDS)
    except grpc.RpcError as error:
        if status(error)[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED", "UNKNOWN", "INTERNAL"):
            raise


def status(error: Exception) -> tuple[str, str]:
    """Return the name of gRPC's status code, and the words that came with it."""
    if isinstance(error, grpc.RpcError):
        return error.code().name, error.details() or ""
    return "CANCELLED", str(error)
