"""The mirror against a real etcd that is killed, frozen, compacted and wiped."""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.waiting import eventually
from uncloud_host.etcd import Connection, Delete, EtcdError, KeyValue, Position, Put
from uncloud_host.mirror import Mirror
from uncloud_host.news import Changed, Lost, Synced

PREFIX = "/v1/vm/"
MINE = b'{"host": "me"}'
FOREIGN = b'{"host": "other"}'


def mine(_key: str, value: bytes) -> bool:
    return b'"me"' in value


class Following:
    """A mirror in a thread, and all that it told."""

    def __init__(self, connection: Connection, known: Position | None = None, **how: object) -> None:
        self.connection = connection
        self.told: list[object] = []
        self.mirror = Mirror(connection, PREFIX, **{"select": mine, "told": self.told.append, "interval": 0.5, **how})
        self.thread = threading.Thread(target=self.mirror.run, args=[known])
        self.thread.start()

    def of(self, kind: type) -> list:
        return [each for each in self.told if isinstance(each, kind)]

    def changed(self) -> set[str]:
        return {key for each in self.of(Changed) for key in each.keys}

    def values(self) -> dict[str, bytes]:
        return {key: entry.value for key, entry in self.mirror.replica.snapshot().items()}

    def end(self) -> None:
        self.mirror.stop()
        self.connection.close()
        self.thread.join(5)
        assert not self.thread.is_alive()


@pytest.fixture
def follow(etcd) -> Iterator[Callable[..., Following]]:
    made: list[Following] = []

    def start(access=None, **how: object) -> Following:
        made.append(Following((access or etcd).connect(), **how))
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.fixture
def put(connection) -> Callable[..., int]:
    def write(name: str, value: bytes = MINE, prefix: str = PREFIX) -> int:
        return connection.txn([], [Put(prefix + name, value)]).revision

    return write


def remove(connection: Connection, name: str) -> None:
    connection.txn([], [Delete(PREFIX + name)])


def in_step(following: Following, count: int = 1) -> Synced:
    return eventually(lambda: following.of(Synced)[count - 1 :], within=20)[0]


def test_what_is_there_is_listed_and_what_comes_and_goes_is_told(follow, put, connection):
    revision = put("a")
    it = follow()
    assert in_step(it) == Synced(revision, relisted=True, regressed=False)
    assert it.mirror.replica.get(PREFIX + "a") == KeyValue(PREFIX + "a", MINE, revision, revision)
    put("b")
    eventually(lambda: PREFIX + "b" in it.changed())
    assert it.mirror.replica.get(PREFIX + "b").value == MINE
    remove(connection, "a")
    eventually(lambda: PREFIX + "a" in it.changed())
    assert set(it.mirror.replica.snapshot()) == {PREFIX + "b"}


def test_entries_that_are_not_selected_are_neither_kept_nor_told(follow, put):
    put("foreign", FOREIGN)
    it = follow()
    in_step(it)
    put("foreign", FOREIGN + b" ")
    put("more", FOREIGN)
    put("a")
    eventually(it.changed)
    assert it.changed() == {PREFIX + "a"}
    assert set(it.mirror.replica.snapshot()) == {PREFIX + "a"}


def test_an_entry_that_moves_away_stays_visible_until_it_is_forgotten(follow, put):
    put("a")
    it = follow()
    in_step(it)
    put("a", FOREIGN)
    eventually(lambda: PREFIX + "a" in it.changed())
    assert it.values() == {PREFIX + "a": FOREIGN}
    it.mirror.replica.forget(PREFIX + "a")
    assert it.values() == {}
    put("a")
    eventually(lambda: it.values() == {PREFIX + "a": MINE})
    it.mirror.replica.forget(PREFIX + "a")
    assert it.values() == {PREFIX + "a": MINE}, "one that is selected again is not forgotten"


def test_hints_are_told_of_interesting_keys_and_nothing_of_them_is_kept(follow, put):
    it = follow(hints=["/v1/claim/", "/v1/host/"], interesting=lambda key: key.endswith("/a"))
    in_step(it)
    put("b", prefix="/v1/claim/")
    put("a", prefix="/v1/claim/")
    put("a", prefix="/v1/host/")
    eventually(lambda: it.changed() == {"/v1/claim/a", "/v1/host/a"})
    assert it.mirror.replica.snapshot() == {}


def test_nothing_is_lost_when_etcd_is_killed_and_back_means_back_within_a_second(follow, put, etcd):
    it = follow(hints=["/v1/claim/"])
    in_step(it)
    put("before")
    etcd.kill()
    lost = eventually(lambda: it.of(Lost))
    assert lost == [Lost(f"etcd {etcd.endpoint}: connection refused")]
    etcd.start()
    began = time.monotonic()
    put("after")
    put("c", prefix="/v1/claim/")
    eventually(lambda: {PREFIX + "after", "/v1/claim/c"} <= it.changed(), within=5)
    assert time.monotonic() - began < 1.5
    assert not in_step(it, 2).relisted
    assert len(it.of(Lost)) == 1
    assert set(it.values()) == {PREFIX + "before", PREFIX + "after"}


def test_an_outage_is_told_once_however_long_it_is(follow, etcd):
    it = follow()
    in_step(it)
    etcd.kill()
    eventually(lambda: it.of(Lost))
    until = time.monotonic() + 2
    eventually(lambda: time.monotonic() > until)
    etcd.start()
    in_step(it, 2)
    assert [type(each) for each in it.told] == [Synced, Lost, Synced]


def test_an_etcd_that_is_not_there_at_first_is_told_and_then_found(follow, put, etcd):
    put("a")
    etcd.kill()
    it = follow()
    eventually(lambda: it.of(Lost))
    assert it.of(Synced) == []
    etcd.start()
    assert in_step(it).relisted
    assert set(it.values()) == {PREFIX + "a"}


def test_a_frozen_etcd_is_noticed_and_what_it_knew_arrives_after_the_thaw(follow, put, etcd):
    it = follow()
    in_step(it)
    put("a")
    etcd.stop()
    lost = eventually(lambda: it.of(Lost), within=10)
    assert "no answer within" in lost[0].reason
    etcd.cont()
    put("b")
    in_step(it, 2)
    eventually(lambda: set(it.values()) == {PREFIX + "a", PREFIX + "b"})


def test_history_compacted_while_away_means_a_new_list(follow, put, etcd):
    put("gone")
    it = follow()
    in_step(it)
    with etcd.hidden() as hidden:
        hidden.txn([], [Delete(PREFIX + "gone")])
        hidden.txn([], [Put(PREFIX + "new", MINE)])
        etcd.compact()
    synced = in_step(it, 2)
    assert synced.relisted
    assert not synced.regressed
    assert set(it.values()) == {PREFIX + "new"}


class Disaster(logging.Handler):
    """What happens between the word that a list is needed and the list."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self.happens = happens

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("listing "):
            self.happens()


def test_a_wipe_between_compacted_history_and_the_new_list_is_told_as_regressed(follow, put, etcd):
    for number in range(5):
        put(str(number))
    it = follow()
    in_step(it)
    disaster = Disaster(etcd.wipe)
    logging.getLogger("uncloud_host.mirror").addHandler(disaster)
    try:
        with etcd.hidden() as hidden:
            for name in "ab":
                hidden.txn([], [Put(PREFIX + name, MINE)])
            etcd.compact()
        assert in_step(it, 2).regressed
    finally:
        logging.getLogger("uncloud_host.mirror").removeHandler(disaster)


def test_compacted_history_of_hints_only_means_to_look_at_everything(follow, put, etcd, caplog):
    it = follow(hints=["/v1/claim/"])
    in_step(it)
    for name in "abc":
        put(name)
    eventually(lambda: PREFIX + "c" in it.changed())
    with etcd.hidden():
        etcd.compact()
    assert in_step(it, 2).relisted
    assert not [record for record in caplog.records if "listing" in record.message]
    put("d", prefix="/v1/claim/")
    eventually(lambda: "/v1/claim/d" in it.changed())
    assert len(it.of(Lost)) == 1


def test_deletions_are_told_with_their_revision_also_of_what_is_back_at_once(follow, put, connection):
    for name in "abc":
        put(name)
    it = follow()
    in_step(it)
    revision = connection.txn([], [Delete(PREFIX + "a"), Delete(PREFIX + "b")]).revision
    put("b")
    put("c")
    eventually(lambda: it.mirror.replica.get(PREFIX + "c").mod_revision > revision + 1)
    deleted = {key: at for each in it.of(Changed) for key, at in each.deleted.items()}
    assert deleted == {PREFIX + "a": revision, PREFIX + "b": revision}


def test_a_wiped_etcd_is_told_as_regressed(follow, put, etcd):
    for number in range(5):
        put(str(number))
    it = follow(soon=100.0)  # so that no comparison finds it first
    in_step(it)
    etcd.wipe()
    put("other")
    synced = eventually(lambda: [each for each in it.of(Synced) if each.relisted][1:], within=10)[0]
    assert synced.regressed
    eventually(lambda: set(it.values()) == {PREFIX + "other"})


def test_a_wiped_etcd_is_told_as_regressed_also_soon_after_many_changes(follow, put, etcd):
    it = follow(soon=100.0)
    in_step(it)
    for number in range(5):
        put(str(number))
    eventually(lambda: len(it.values()) == 5)
    etcd.wipe()
    for _ in range(3):
        put("other")
    synced = eventually(lambda: [each for each in it.of(Synced) if each.relisted][1:], within=10)[0]
    assert synced.regressed


def test_a_history_that_went_backwards_while_nobody_looked_is_told_with_the_first_list(follow, put):
    put("a")
    first = follow()
    in_step(first)
    known = first.mirror.position
    assert known is not None
    told = in_step(follow(known=replace(known, revision=known.revision + 5)))
    assert (told.relisted, told.regressed) == (True, True)
    assert not in_step(follow(known=known)).regressed


def test_a_wiped_etcd_that_outgrew_the_known_revision_is_found_by_comparison(follow, put, etcd):
    put("a")
    put("foreign", FOREIGN)
    it = follow(soon=0.5)
    in_step(it)
    with etcd.hidden(wiped=True) as hidden:
        hidden.txn([], [Put(PREFIX + "foreign", MINE)])
        for number in range(20):
            hidden.txn([], [Put("/elsewhere", str(number).encode())])
    synced = eventually(lambda: [each for each in it.of(Synced) if each.relisted][1:], within=15)[0]
    assert synced.regressed
    assert it.values() == {PREFIX + "foreign": MINE}


def test_comparisons_of_an_etcd_under_load_find_nothing_and_cost_no_list(follow, put, connection):
    for number in range(300):
        put(str(number), FOREIGN if number % 3 else MINE)
    it = follow(audit=0.05)
    in_step(it)
    chance = random.Random(1)
    until = time.monotonic() + 3
    while time.monotonic() < until:
        name = str(chance.randrange(300))
        if chance.random() < 0.1:
            remove(connection, name)
        else:
            put(name, chance.choice([MINE, FOREIGN]))
        it.mirror.replica.forget(PREFIX + name)
    assert len(it.of(Synced)) == 1
    put("last")
    eventually(lambda: PREFIX + "last" in it.values())


def test_ten_thousand_entries_are_listed_and_only_mine_kept(follow, connection):
    padding = b" " * 1480
    for start in range(0, 10_000, 100):
        operations = [
            Put(f"{PREFIX}{number:05}", (FOREIGN if number % 100 else MINE) + padding)
            for number in range(start, start + 100)
        ]
        connection.txn([], operations)
    began = time.monotonic()
    it = follow(select=lambda key, value: True)  # noqa: ARG005
    in_step(it)
    assert time.monotonic() - began < 3
    assert len(it.mirror.replica.snapshot()) == 10_000
    other = follow()
    in_step(other)
    assert len(other.mirror.replica.snapshot()) == 100


def test_a_backlog_larger_than_one_message_is_caught_up_with(follow, etcd):
    it = follow()
    in_step(it)
    with etcd.hidden() as hidden:
        for number in range(40):
            hidden.txn([], [Put(f"{PREFIX}{number}", MINE + b" " * 200_000)])
    assert not in_step(it, 2).relisted
    assert len(it.mirror.replica.snapshot()) == 40, "all is there when it is told that the mirror is in step"


def test_a_missing_permission_is_named_once_and_healed_by_granting_it(follow, etcd, tmp_path):
    secret = tmp_path / "password"
    secret.write_text("password")
    etcd.ctl("user", "add", "root:secret")
    etcd.ctl("user", "grant-role", "root", "root")
    etcd.ctl("user", "add", "agent:password")
    etcd.ctl("role", "add", "host")
    etcd.ctl("user", "grant-role", "agent", "host")
    etcd.ctl("auth", "enable")

    class AsAgent:
        @staticmethod
        def connect() -> Connection:
            return etcd.connect(user="agent", password_file=str(secret))

    it = follow(AsAgent)
    eventually(lambda: it.of(Lost))
    etcd.ctl("--user=root:secret", "role", "grant-permission", "host", "--prefix=true", "readwrite", PREFIX)
    in_step(it)
    assert it.of(Lost) == [Lost(f"etcd {etcd.endpoint}: permission denied on {PREFIX}")]
    writer = AsAgent.connect()
    writer.txn([], [Put(PREFIX + "a", MINE)])
    writer.close()
    eventually(lambda: it.changed() == {PREFIX + "a"})


def test_killed_frozen_and_compacted_at_random_it_ends_equal(follow, etcd):
    chance = random.Random(20)
    it = follow(soon=1.0, hints=["/v1/claim/"])
    in_step(it)
    done = threading.Event()

    def write() -> None:
        connection = etcd.connect()
        random_ = random.Random(21)
        while not done.wait(0.01):
            key = f"{PREFIX}{random_.randrange(100)}"
            operation = Delete(key) if random_.random() < 0.1 else Put(key, random_.choice([MINE, FOREIGN]))
            try:
                connection.txn([], [operation])
            except EtcdError:
                continue
        connection.close()

    def kill() -> None:
        etcd.kill()
        etcd.start()

    def freeze() -> None:
        etcd.stop()
        until = time.monotonic() + chance.uniform(0.2, 2.5)
        eventually(lambda: time.monotonic() > until)
        etcd.cont()

    writer = threading.Thread(target=write)
    writer.start()
    until = time.monotonic() + 10
    while time.monotonic() < until:
        chance.choice([kill, kill, freeze, etcd.compact])()
        pause = time.monotonic() + chance.uniform(0.1, 1.0)
        eventually(lambda pause=pause: time.monotonic() > pause)
    done.set()
    writer.join()

    reader = etcd.connect()
    live = {entry.key: entry.mod_revision for page in reader.pages(PREFIX) for entry in page.entries}
    selected = {entry.key for page in reader.pages(PREFIX) for entry in page.entries if mine(entry.key, entry.value)}
    reader.close()

    def equal() -> bool:
        kept = {key: entry.mod_revision for key, entry in it.mirror.replica.snapshot().items()}
        return selected <= set(kept) and kept == {key: live[key] for key in kept if key in live}

    eventually(equal, within=15)
    assert not any(each.regressed for each in it.of(Synced))
