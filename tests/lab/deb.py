"""The project's .deb, built from a checkout in a Debian 13 tree without a network."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from . import tree
from .machine import CACHE, LabError, requirements

BUILD = "cd /build/source && dpkg-buildpackage -us -uc -b"


def build(source: Path) -> Path:
    """The .deb of what git knows or would add in this checkout, built unless the cache has it already.

    Without the tests that its build does not run: who changes one of them waits for no build.
    """
    requirements()
    files = _files(source)
    builder = tree.build(source / "debian/control")
    name = f"deb-{tree.key(builder.parent.name, _fingerprint(source, files))}"
    with tree.made(name, "building the package") as new:
        if new:
            for file in files:
                (new / "source" / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / file, new / "source" / file, follow_symlinks=False)
            done = tree.inside(builder, ["/bin/sh", "-c", BUILD], {new: "/build"})
            (new / "build.log").write_text(done.stdout)
            if done.returncode:
                tail = "\n".join(done.stdout.splitlines()[-60:])
                raise LabError(f"dpkg-buildpackage: exit status {done.returncode}\n{tail}")
            shutil.copy2(new / "source/debian/control", new / "control")
            shutil.rmtree(new / "source")
    return _only(CACHE / name, "*.deb")


def lint(package: Path) -> str:
    """What lintian says about a package that `build` made; empty when it has nothing to say."""
    changes = _only(package.parent, "*.changes")
    builder = tree.build(package.parent / "control")
    command = ["lintian", "--allow-root", "--info", f"/build/{changes.name}"]
    done = tree.inside(builder, command, {package.parent: "/build"})
    if done.returncode not in (0, 2):  # 2: there are errors; they are in the output
        raise LabError(f"lintian: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def _files(source: Path) -> list[Path]:
    """What git tracks or would track, less what is deleted."""
    # root may run this in a checkout of somebody else's, which git refuses to read unless told.
    command = ["git", "-c", "safe.directory=*", "-C", str(source), "ls-files", "-z", "-co", "--exclude-standard"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = sorted(path for name in set(done.stdout.split("\0")) if name and _there(source, path := Path(name)))
    return [path for path in found if path.match("tests/core/test_*.py") or not path.match("tests/*/test_*.py")]


def _there(source: Path, path: Path) -> bool:
    return os.path.lexists(source / path)


def _fingerprint(source: Path, files: list[Path]) -> str:
    """A hash of names, executable bits and contents."""
    digest = hashlib.sha256()
    for file in files:
        path = source / file
        link = path.is_symlink()
        mode = "link" if link else "program" if os.access(path, os.X_OK) else "file"
        content = os.fsencode(path.readlink()) if link else path.read_bytes()
        digest.update(f"{file}\0{mode}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise LabError(f"expected one {pattern} in {directory}, found {len(found)}")
    return found[0]
