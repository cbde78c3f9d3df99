"""Packages of this checkout, and what one does with them on a host."""

import re
import shutil
import subprocess
from pathlib import Path

from lab import deb
from system.world import World
from waiting import eventually

SOURCE = Path(__file__).parents[2]
CHANGELOG = """uncloud-host ({version}) unstable; urgency=medium

  * A version that exists in tests only.

 -- Uncloud Team <uncloud@example.org>  Tue, 24 Nov 2026 09:00:00 +0000

"""


def checkout(destination: Path) -> Path:
    """Copy what git knows or would add, without what a dirty working directory has beside it."""
    command = ["git", "-c", "safe.directory=*", "-C", str(SOURCE), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    for name in sorted(set(listed.split("\0"))):
        if name and (SOURCE / name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(SOURCE / name, destination / name)
    subprocess.run(["git", "init", "--quiet", str(destination)], check=True)
    return destination


def newer(destination: Path, version: str = "99.0") -> Path:
    """Build the package of a higher version, whose unit file differs, too."""
    source = checkout(destination)
    changelog = source / "debian/changelog"
    changelog.write_text(CHANGELOG.format(version=version) + changelog.read_text())
    project, unit = source / "pyproject.toml", source / "units/uncloud-host.service"
    project.write_text(re.sub(r'^version = ".*"$', f'version = "{version}"', project.read_text(), flags=re.MULTILINE))
    unit.write_text(unit.read_text().replace("Description=", f"Description={version} ", 1))
    return deb.build(source)


def apt_install(world: World, package: Path, *options: str) -> None:
    """Install, upgrade or reinstall, as an administrator does."""
    world.host.push(package, f"/root/{package.name}")
    words = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *options, f"/root/{package.name}"]
    world.host.run(*words, timeout=120)


def run_of(world: World) -> str:
    """Tell one run of the agent from another."""
    return world.host.run("systemctl", "show", "uncloud-host", "-p", "InvocationID", "--value").stdout.strip()


def wait_restarted(world: World, old: str) -> None:
    """Wait until another run of the agent is ready."""
    eventually(lambda: run_of(world) not in ("", old), what="the agent has been restarted")
    world.wait_ready()


def untouched(world: World, pids: dict[str, int]) -> None:
    """Check that these VMs run on: the same process, and no boot that was not there before."""
    assert {uuid: world.pid(uuid) for uuid in pids} == pids
    assert {uuid: world.qemus(uuid) for uuid in pids} == {uuid: [pid] for uuid, pid in pids.items()}
