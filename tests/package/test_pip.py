"""Without Debian's package: pip, in a fresh environment, with each Python that we support and that is here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from package.debs import SOURCE, checkout

from lab import tree

OLDEST = (3, 11)
CHECK = """
import sys, importlib.metadata
import uncloud_host.etcd, uncloud_host.agent
print(*sys.version_info[:2], importlib.metadata.version("uncloud-host"), uncloud_host.agent.__file__)
"""


def pythons() -> dict[str, str]:
    """The machine's own python3, and newer or older ones beside it, by version."""
    named = [path for minor in range(OLDEST[1], 20) if (path := shutil.which(f"python3.{minor}"))]
    pyenv = sorted((Path.home() / ".pyenv/versions").glob("3.*/bin/python3"))
    found: dict[str, str] = {}
    for path in ["/usr/bin/python3", *named, *map(str, pyenv)]:
        script = "import sys; print('%d.%d' % sys.version_info[:2], sys.version_info >= (3, 11))"
        done = subprocess.run([path, "-c", script], capture_output=True, text=True, check=False)
        version, _, supported = done.stdout.strip().partition(" ")
        if supported == "True":  # a shim of pyenv may stand for a Python that is not switched on
            found.setdefault(version, path)
    return found


def said(command: list[str], **more: object) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_machine_has_a_python_to_test_with() -> None:
    assert pythons()


@pytest.mark.parametrize("version", pythons())
def test_pip_installs_what_works(version: str, tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    # No virtual environment of the one who runs the tests: it would lend its packages.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("VIRTUAL_ENV", "PYTHON"))}
    said([pythons()[version], "-m", "venv", str(tmp_path / "venv")], env=environment)
    programs = tmp_path / "venv/bin"
    said([str(programs / "pip"), "install", "--quiet", str(source)], env=environment)
    works(programs, version, tmp_path)
    said([str(programs / "pip"), "check"])
    assert list((tmp_path / "venv").rglob("uncloud_host/libexec/record"))


def works(programs: Path, version: str, elsewhere: Path) -> None:
    """Run what was installed, not in the checkout, whose modules would be found first."""
    declared = next(line for line in (SOURCE / "pyproject.toml").read_text().splitlines() if line.startswith("version"))
    number = declared.split('"')[1]
    assert said([str(programs / "uncloud-host"), "--version"], cwd=elsewhere) == f"uncloud-host {number}\n"
    assert "usage: uncloud-host" in said([str(programs / "uncloud-host"), "--help"], cwd=elsewhere)
    told = said([str(programs / "python"), "-W", "error", "-c", CHECK], cwd=elsewhere)
    assert told.startswith(f"{version.replace('.', ' ')} {number} {programs.parent}/lib/")


INSIDE = """set -e
apt-get -qq update
apt-get -qq --yes --no-install-recommends install python3-venv python3-dev gcc pkg-config libsystemd-dev >/dev/null 2>&1
python3 -m venv /scratch/venv
/scratch/venv/bin/pip install --quiet /scratch/source
cd /scratch
/scratch/venv/bin/pip check
/scratch/venv/bin/uncloud-host --help >/dev/null
/scratch/venv/bin/uncloud-host --version
/scratch/venv/bin/python -W error -c '{check}'
"""


def pip_settings(directory: Path) -> dict[Path, str]:
    """Let pip inside reach what pip outside reaches: its settings, and the files and directories that they name."""
    pip = [shutil.which("pip3") or "pip3", "config", "list"]
    binds: dict[Path, str] = {}
    lines = ["[global]"]
    for line in subprocess.run(pip, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines():
        key, _, value = line.partition("=")
        lines.append(f"{key.rpartition('.')[2]} = {value.strip(chr(39))}")
        for word in value.strip("'").split():
            # An index in a directory: its files lie beside its pages.
            path = Path(word.removeprefix("file://")).parent if word.startswith("file://") else Path(word)
            if path.is_absolute() and path.exists():
                binds[path] = str(path)
    (directory / "pip.conf").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    return binds | {directory / "pip.conf": "/etc/pip.conf"}


def test_pip_installs_what_works_on_debian_13(tmp_path: Path) -> None:
    checkout(tmp_path / "source")
    script = INSIDE.format(check=CHECK.replace("'", '"'))
    builder = tree.build(SOURCE / "debian/control")
    done = tree.inside(
        builder, ["/bin/sh", "-c", script], pip_settings(tmp_path) | {tmp_path: "/scratch"}, network=True
    )
    assert done.returncode == 0, done.stdout
    assert "3 13 " in done.stdout
