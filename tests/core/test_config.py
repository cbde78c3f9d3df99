"""Environment variables: every wrong one is a line that names it."""

import re

import pytest

from uncloud_host import config
from uncloud_host.events import FAILURES, Name

WRONG = {
    "UNCLOUD_ETCD": [
        "127.0.0.1:2379",
        "http://a",
        "ftp://a:1",
        "http://a:1 b",
        "http://a:65536",
        "http://a..b:1",
        "http://[1.2]:1",
    ],
    "UNCLOUD_ETCD_CA": ["/nowhere/ca.pem"],
    "UNCLOUD_PREFIX": ["v1", "/v1/", "/v 1"],
    "UNCLOUD_MAIL_TO": ["sre", "a@b c", "<a@b>"],
    "UNCLOUD_MAIL_ON": ["everything", "killed crashes"],
    "UNCLOUD_SMTP": ["host:0", "host:99999", "a b", "http://host"],
    "UNCLOUD_ACCEL": ["xen", "KVM"],
    "UNCLOUD_CPU": ["host,+svm"],
    "UNCLOUD_MACHINE": ["q35,accel=xen"],
    "UNCLOUD_HOST_NAME": ["a b", "a$b"],
    "UNCLOUD_IMAGE_DIRS": ["images", "/a:b"],
    "UNCLOUD_RESTART_LIMIT": ["0", "-1", "many", "1.5", "²"],
    "UNCLOUD_STOP_TIMEOUT": ["0", "2m", "86401"],
    "UNCLOUD_CEPH_CONF": ["ceph.conf"],
    "UNCLOUD_CEPH_USER": ["client libvirt", "libvirt,admin"],
    "UNCLOUD_CEPH_KEYRING": ["keyring"],
    "UNCLOUD_METRICS_LISTEN": ["9477", ":9477", "::1:9477", "host:0", "host:65536", "http://host:9477", "a b:1"],
    "UNCLOUD_ETDC": ["http://127.0.0.1:2379"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_one_line_that_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.read({name: value})
    assert re.fullmatch(f"{name}: .+", str(error.value))


def test_without_any_variable_there_is_a_default_for_each() -> None:
    known = config.read({"HOME": "/root", "UNCLOUD_SMTP": ""})
    assert known.etcd.endpoints == ("http://127.0.0.1:2379",)
    assert (known.choices.accel, known.choices.cpu, known.choices.machine) == ("kvm", "host", "q35")
    assert (known.mail.to, known.mail.smtp) == ((), None)


def test_the_keyring_is_that_of_the_user() -> None:
    assert config.read({"UNCLOUD_CEPH_USER": "vms"}).ceph.keyring == "/etc/ceph/ceph.client.vms.keyring"


def test_tcg_knows_no_host_cpu() -> None:
    assert config.read({"UNCLOUD_ACCEL": "tcg"}).choices.cpu == "max"


@pytest.mark.parametrize(
    ("text", "events"),
    [("all", set(Name)), ("none", set()), ("failures", FAILURES), ("killed, panicked", {Name.KILLED, Name.PANICKED})],
)
def test_which_events_are_mailed(text: str, events: set[Name]) -> None:
    assert config.read({"UNCLOUD_MAIL_ON": text}).mail.on == events


@pytest.mark.parametrize(("text", "smtp"), [("mx", "mx:25"), ("mx:587", "mx:587"), ("[::1]:25", "[::1]:25")])
def test_where_mail_goes(text: str, smtp: str) -> None:
    assert config.read({"UNCLOUD_SMTP": text}).mail.smtp == smtp


def test_a_user_needs_a_password_and_a_certificate_a_key(tmp_path) -> None:
    (tmp_path / "file").write_text("secret\n")
    file = str(tmp_path / "file")
    for half in ({"UNCLOUD_ETCD_USER": "host1"}, {"UNCLOUD_ETCD_CERT": file}):
        with pytest.raises(config.ConfigError, match="expected both or none"):
            config.read(half)
    assert config.read({"UNCLOUD_ETCD_USER": "h", "UNCLOUD_ETCD_PASSWORD_FILE": file}).etcd.password_file == file


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"UNCLOUD_SMTP_USER": "host1"}, "UNCLOUD_SMTP_USER and UNCLOUD_SMTP_PASSWORD_FILE: expected both or none"),
        ({"UNCLOUD_SMTP_USER": "host1", "UNCLOUD_SMTP_PASSWORD_FILE": __file__}, "UNCLOUD_SMTP_TLS: expected starttls"),
        ({"UNCLOUD_SMTP_TLS": "ssl"}, "UNCLOUD_SMTP_TLS: expected no, starttls or tls, got 'ssl'"),
        ({"UNCLOUD_SMTP_CA": "/nowhere/ca.pem"}, "UNCLOUD_SMTP_CA: expected the path of a readable file"),
    ],
)
def test_a_login_without_tls_is_refused(variables: dict[str, str], said: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.read(variables)
    assert str(error.value).startswith(said)


def test_a_password_is_not_shown(tmp_path) -> None:
    (tmp_path / "file").write_text("secret\n")
    login = {"UNCLOUD_SMTP_USER": "h", "UNCLOUD_SMTP_PASSWORD_FILE": str(tmp_path / "file"), "UNCLOUD_SMTP_TLS": "tls"}
    known = config.read(login)
    assert known.mail.password == "secret"
    assert "secret" not in repr(known.mail)


def test_what_an_audit_finds_can_be_asked_for() -> None:
    wanted = config.read({"UNCLOUD_MAIL_ON": "audit, gave-up"}).mail.on
    assert {Name.MISSING, Name.REMINDER, Name.RESOLVED, Name.GAVE_UP} <= wanted
    assert Name.KILLED not in wanted
