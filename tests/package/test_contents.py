"""What is in the package is what Debian wants to see."""

from pathlib import Path

import pytest

from lab import deb
from system.world import World

UNITS = "/usr/lib/systemd/system"


def test_lintian_says_nothing(package: Path) -> None:
    # It reads the man pages, too, with groff's warnings switched on.
    assert [line for line in deb.lint(package).splitlines() if line.startswith(("E:", "W:"))] == []


def test_systemd_finds_nothing_in_the_units(world: World) -> None:
    units = world.shell(f"ls {UNITS}/uncloud-*").split()
    assert len(units) >= 3
    done = world.host.run("systemd-analyze", "verify", "--man=no", *units)
    assert done.stdout + done.stderr == ""


def test_it_depends_on_all_that_it_imports(world: World) -> None:
    """The host's tree was made by installing the package; what it recommends in addition brings no module of these."""
    modules = world.shell("cd /usr/lib/python3/dist-packages/uncloud_host && ls *.py").replace(".py", "").split()
    names = ", ".join(f"uncloud_host.{module}" for module in modules if not module.startswith("__"))
    world.host.run("python3", "-W", "error", "-c", f"import {names}")


@pytest.mark.parametrize("path", ["/var/lib/uncloud-host", "/var/lib/uncloud-host/events", "/run/uncloud-host"])
def test_what_the_agent_keeps_is_closed_to_others(world: World, path: str) -> None:
    assert world.shell(f"stat -c %U {path}") == "root\n"
    assert world.shell(f"setpriv --reuid=nobody --regid=nogroup --clear-groups touch {path}/x || echo no") == "no\n"
