"""The connection to etcd, against real ones: transactions, faults, TLS and passwords."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.waiting import eventually
from uncloud_host.etcd import Access, Compare, Connection, Delete, EtcdError, Put, TxnResult

SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # what an HTTP/2 server says first


def put(connection: Connection, key: str, value: bytes) -> int:
    return connection.txn([], [Put(key, value)]).revision


def complaint(access: Access, key: str = "/v1/vm/a") -> str:
    connection = Connection(access, timeout=3.0)
    with pytest.raises(EtcdError) as caught:
        connection.get(key)
    connection.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestReadingAndWriting:
    def test_what_was_put_is_read_and_what_was_not_is_none(self, connection):
        revision = put(connection, "/v1/vm/a", b"one")
        read_at, (a, b) = connection.get("/v1/vm/a", "/v1/vm/b")
        assert (a.key, a.value, a.create_revision, a.mod_revision) == ("/v1/vm/a", b"one", revision, revision)
        assert b is None
        assert read_at == revision

    def test_a_key_that_is_no_text_survives_the_round_trip(self, connection):
        key = b"/v1/vm/\xff\xfe".decode(errors="surrogateescape")
        put(connection, key, b"x")
        assert connection.get(key)[1][0].key == key

    def test_a_transaction_happens_only_if_the_entry_is_the_one_that_was_read(self, connection):
        first = put(connection, "/k", b"1")
        second = connection.txn([Compare("/k", mod_revision=first)], [Put("/k", b"2")], ["/k"])
        assert second == TxnResult(succeeded=True, revision=first + 1)
        third = connection.txn([Compare("/k", mod_revision=first)], [Put("/k", b"3")], ["/k", "/none"])
        assert not third.succeeded
        assert third.entries[0].value == b"2"
        assert third.entries[1] is None

    def test_conditions_on_creation_and_value_and_deletion(self, connection):
        created = connection.txn([Compare("/k", create_revision=0)], [Put("/k", b"1")])
        assert created.succeeded
        assert not connection.txn([Compare("/k", create_revision=0)], [Put("/k", b"2")]).succeeded
        assert not connection.txn([Compare("/k", value=b"2")], [Delete("/k")]).succeeded
        assert connection.txn(
            [Compare("/k", value=b"1", create_revision=created.revision)], [Delete("/k"), Put("/l", b"3")]
        ).succeeded
        assert [entry and entry.value for entry in connection.get("/k", "/l")[1]] == [None, b"3"]

    def test_a_range_of_keys_is_deleted_up_to_its_end(self, connection):
        for number in range(5):
            put(connection, f"/log/{number}", b"")
        connection.txn([], [Delete("/log/", "/log/3")])
        assert [entry.key for page in connection.pages("/log/") for entry in page.entries] == ["/log/3", "/log/4"]

    def test_a_deleted_entry_does_not_come_back_by_a_late_write(self, connection):
        revision = put(connection, "/k", b"1")
        connection.txn([], [Delete("/k")])
        assert not connection.txn([Compare("/k", mod_revision=revision)], [Put("/k", b"2")]).succeeded
        assert connection.get("/k")[1] == [None]

    def test_no_concurrent_edit_is_lost(self, etcd, connection):
        put(connection, "/counter", b"0")

        def count(times: int) -> None:
            mine = etcd.connect()
            for _ in range(times):
                while True:
                    (entry,) = mine.get("/counter")[1]
                    new = str(int(entry.value) + 1).encode()
                    if mine.txn(
                        [Compare("/counter", mod_revision=entry.mod_revision)], [Put("/counter", new)]
                    ).succeeded:
                        break
            mine.close()

        threads = [threading.Thread(target=count, args=(100,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert connection.get("/counter")[1][0].value == b"300"

    def test_one_connection_serves_many_threads(self, connection):
        def write(number: int) -> None:
            for again in range(50):
                put(connection, f"/t/{number}", str(again).encode())

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [e.value for e in connection.get(*(f"/t/{number}" for number in range(8)))[1]] == [b"49"] * 8

    def test_all_pages_are_of_one_revision(self, connection):
        for number in range(10):
            put(connection, f"/p/{number}", b"old")
        pages = connection.pages("/p/", size=3)
        values = [entry.value for entry in next(pages).entries]
        put(connection, "/p/9", b"new")
        rest = list(pages)
        values += [entry.value for page in rest for entry in page.entries]
        assert values == [b"old"] * 10
        assert len({page.position for page in rest}) == 1

    def test_a_list_whose_history_is_compacted_away_meanwhile_says_so(self, etcd, connection):
        for number in range(4):
            put(connection, f"/p/{number}", b"")
        pages = connection.pages("/p/", size=2)
        next(pages)
        put(connection, "/p/5", b"")
        etcd.compact()
        with pytest.raises(EtcdError) as caught:
            list(pages)
        assert caught.value.problem == "compacted"

    def test_a_lease_takes_its_keys_with_it(self, connection):
        lease = connection.grant(60)
        connection.txn([], [Put("/v1/host/a", b"", lease)])
        assert connection.renew(lease)
        short = connection.grant(1)
        connection.txn([], [Put("/v1/host/b", b"", short)])
        eventually(lambda: connection.get("/v1/host/b")[1] == [None])
        assert not connection.renew(short)
        assert connection.get("/v1/host/a")[1] != [None]

    def test_a_value_that_is_too_big_is_called_that(self, connection):
        with pytest.raises(EtcdError, match=r"the value of /big is larger than etcd takes") as caught:
            put(connection, "/big", b"x" * 1_700_000)
        assert caught.value.problem == "too-big"

    def test_a_full_etcd_is_called_full(self, new_etcd):
        etcd = new_etcd("--quota-backend-bytes=1000000")
        connection = etcd.connect()
        with pytest.raises(EtcdError, match="out of space") as caught:
            for number in range(2000):  # it counts what it has committed, every 100 ms
                put(connection, f"/fill/{number}", b"x" * 100_000)
        assert caught.value.problem == "full"
        assert connection.get("/fill/0")[1][0] is not None
        connection.close()


class TestFaults:
    def test_a_refused_port_is_named_at_once(self, etcd):
        etcd.kill()
        began = time.monotonic()
        assert complaint(etcd.access) == f"etcd {etcd.endpoint}: connection refused"
        assert time.monotonic() - began < 2

    def test_an_unknown_name_is_named(self):
        assert "unknown host name" in complaint(Access(("http://nosuch.invalid:2379",)))

    def test_a_frozen_etcd_is_given_up_in_time(self, etcd, connection):
        connection.get("/")
        etcd.stop()
        began = time.monotonic()
        with pytest.raises(EtcdError, match="no answer within"):
            connection.get("/")
        assert time.monotonic() - began < 8
        etcd.cont()
        eventually(lambda: connection.get("/"))

    def test_one_that_speaks_too_late_costs_no_descriptor(self):
        """Thawed, it answered connections that had been given up, and gRPC 1.51 kept their sockets for ever."""
        with socket.create_server(("127.0.0.1", 0)) as late:
            access = Access((f"http://127.0.0.1:{late.getsockname()[1]}",))

            def try_and_answer() -> None:
                complaint(access)
                late.settimeout(0.5)
                with suppress(TimeoutError):
                    while True:
                        with late.accept()[0] as given_up, suppress(OSError):
                            given_up.sendall(SETTINGS)

            try_and_answer()  # gRPC's own come with the first
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(3):
                try_and_answer()
            eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)

    def test_a_connection_survives_that_etcd_was_killed(self, etcd, connection):
        put(connection, "/k", b"1")
        etcd.kill()
        etcd.start()
        assert connection.get("/k")[1][0].value == b"1"

    def test_another_endpoint_is_used_if_one_is_down(self, etcd):
        connection = Connection(Access(("http://127.0.0.1:1", "http://[::1]:1", etcd.endpoint)))
        assert connection.get("/")[1] == [None]
        connection.close()

    def test_all_endpoints_are_named_if_all_are_down(self):
        text = complaint(Access(("http://127.0.0.1:1", "http://[::1]:2")))
        assert "etcd http://127.0.0.1:1: connection refused" in text
        assert "etcd http://[::1]:2: " in text

    def test_a_closed_connection_says_so(self, connection):
        connection.close()
        with pytest.raises(EtcdError, match="closed"):
            connection.get("/")

    def test_an_endpoint_that_is_none_is_refused(self):
        for endpoint in ("127.0.0.1:2379", "http://host", "ftp://host:1", "http://host:notaport", "http://host:1/v3"):
            with pytest.raises(EtcdError, match="expected http://HOST:PORT"):
                Connection(Access((endpoint,)))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CAs; of the good one a server (127.0.0.1), a server of another name, and a client."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for ca in ("ca", "otherca"):
        openssl("req", "-x509", *curve, "-keyout", f"{ca}.key", "-out", f"{ca}.pem", "-days", "2", "-subj", f"/CN={ca}")
    for name, subject in (("server", "IP:127.0.0.1"), ("wrong", "DNS:etcd.example.org"), ("host1", "DNS:host1")):
        openssl("req", *curve, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        extensions = directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subject}\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-out", f"{name}.pem", "-extfile", extensions.name),
        )
    return directory


@pytest.fixture
def tls_etcd(new_etcd: Callable[..., object], certificates: Path) -> Iterator[Callable[..., object]]:
    def make(server: str = "server") -> object:
        d = certificates
        flags = [f"--cert-file={d}/{server}.pem", f"--key-file={d}/{server}.key", "--client-cert-auth"]
        flags += [f"--trusted-ca-file={d}/ca.pem"]
        access = Access(("",), f"{d}/ca.pem", f"{d}/host1.pem", f"{d}/host1.key")
        return new_etcd(*flags, scheme="https", access=access)

    return make


class TestTls:
    def test_a_client_certificate_opens_the_door_and_nothing_else_does(self, tls_etcd, certificates):
        etcd = tls_etcd()
        d, at = certificates, (etcd.endpoint,)
        cert, key = f"{d}/host1.pem", f"{d}/host1.key"
        connection = Connection(Access(at, f"{d}/ca.pem", cert, key))
        assert connection.get("/")[1] == [None]
        connection.close()

        head = f"etcd {etcd.endpoint}: "
        other = complaint(Access(at, f"{d}/otherca.pem", cert, key))
        assert other.startswith(head + "certificate not trusted: ")
        assert "self-signed" in other or "self signed" in other or "issuer" in other or "signature" in other
        assert "unable to get local issuer" in complaint(Access(at, None, cert, key))
        missing = complaint(Access(at, f"{d}/nothing.pem", cert, key))
        assert missing == head + f"cannot read {d}/nothing.pem: no such file or directory"
        assert "does not accept our client certificate" in complaint(Access(at, f"{d}/ca.pem"))
        assert "only one of the two" in complaint(Access(at, f"{d}/ca.pem", cert))
        assert "this port speaks TLS: write https://" in complaint(
            Access((etcd.endpoint.replace("https", "http"),)),
        )
        (d / "empty.pem").write_text("")
        assert "cannot use the CA, certificate or key" in complaint(Access(at, f"{d}/empty.pem", cert, key))
        etcd.kill()
        assert complaint(Access(at, f"{d}/ca.pem", cert, key)) == head + "connection refused"

    def test_a_certificate_of_another_name_is_not_trusted(self, certificates, new_etcd):
        d = certificates
        etcd = new_etcd(
            f"--cert-file={d}/wrong.pem",
            f"--key-file={d}/wrong.key",
            scheme="https",
            access=Access(("",), f"{d}/ca.pem"),
            ready=lambda error: "certificate not trusted" in error,
        )
        text = complaint(Access((etcd.endpoint,), f"{d}/ca.pem"))
        assert "certificate not trusted" in text
        assert "mismatch" in text
        assert "127.0.0.1" in text

    def test_a_port_without_tls_is_recognised(self, etcd, certificates):
        secure = etcd.endpoint.replace("http", "https")
        text = complaint(Access((secure,), f"{certificates}/ca.pem"))
        assert text == f"etcd {secure}: this port speaks no TLS: write http:// instead of https://"


@pytest.fixture
def guarded(new_etcd: Callable[..., object]) -> object:
    """An etcd with users: `agent` may read /v1/vm/ and write /v1/log/."""
    etcd = new_etcd("--auth-token-ttl=2")
    etcd.ctl("user", "add", "root:secret")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("user", "add", "agent:password")
    etcd.ctl("role", "add", "host")
    etcd.ctl("role", "grant-permission", "host", "--prefix=true", "read", "/v1/vm/")
    etcd.ctl("role", "grant-permission", "host", "--prefix=true", "readwrite", "/v1/log/")
    etcd.ctl("user", "grant-role", "agent", "host")
    etcd.ctl("auth", "enable")
    return etcd


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """The file with the password of `agent`."""
    file = tmp_path / "password"
    file.write_text("password\n")
    return str(file)


class TestPasswords:
    def test_a_user_may_do_what_is_granted_and_is_told_what_is_not(self, guarded, secret):
        connection = guarded.connect(user="agent", password_file=secret)
        assert connection.get("/v1/vm/a")[1] == [None]
        assert put(connection, "/v1/log/x", b"")
        with pytest.raises(EtcdError, match=r"permission denied on /v1/vm/a$") as caught:
            put(connection, "/v1/vm/a", b"")
        assert caught.value.problem == "denied"
        connection.close()

    def test_a_wrong_password_and_no_password_are_told(self, guarded, tmp_path):
        wrong = tmp_path / "wrong"
        access = Access((guarded.endpoint,), user="agent", password_file=str(wrong))
        assert complaint(access).endswith(f"cannot read the password in {wrong}: No such file or directory")
        wrong.write_text("no")
        assert "wrong user name or password" in complaint(access)
        assert "asks for a user name and password" in complaint(Access((guarded.endpoint,)))

    def test_a_changed_password_is_read_from_the_file(self, guarded, secret):
        connection = guarded.connect(user="agent", password_file=secret)
        put(connection, "/v1/log/x", b"")
        guarded.ctl("--user=root:secret", "user", "delete", "agent")
        guarded.ctl("--user=root:secret", "user", "add", "agent:another")
        guarded.ctl("--user=root:secret", "user", "grant-role", "agent", "host")
        with pytest.raises(EtcdError, match="wrong user name or password"):
            put(connection, "/v1/log/x", b"")
        Path(secret).write_text("another\n")
        assert put(connection, "/v1/log/x", b"")
        connection.close()

    def test_an_expired_token_is_renewed(self, guarded, secret):
        connection = guarded.connect(user="agent", password_file=secret)
        put(connection, "/v1/log/x", b"")
        until = time.monotonic() + 3.5  # a token lives for 2 s after its last use, and etcd looks each second
        eventually(lambda: time.monotonic() > until)
        assert put(connection, "/v1/log/x", b"")
        connection.close()

    def test_a_token_forgotten_by_a_restart_or_outdated_by_a_new_role_is_renewed(self, guarded, secret):
        connection = guarded.connect(user="agent", password_file=secret)
        put(connection, "/v1/log/x", b"")
        guarded.kill()
        guarded.start()
        assert put(connection, "/v1/log/x", b"")
        guarded.ctl("--user=root:secret", "role", "add", "another")
        assert put(connection, "/v1/log/x", b"")
        connection.close()

    def test_a_password_is_no_obstacle_where_none_is_asked(self, etcd, secret):
        connection = etcd.connect(user="agent", password_file=secret)
        assert put(connection, "/k", b"")
        connection.close()


def test_no_module_but_the_etcd_ones_loads_grpc():
    code = "import sys, uncloud_host.etcderror; sys.exit('grpc' in sys.modules or 'etcd3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
