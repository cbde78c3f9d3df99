"""Debian 13 trees, made once and kept in the machine's cache.

    base   what every host has: systemd, etcd, pytest and so on, from the machine's own Debian mirror
    build  base, and what the package needs to be built and checked
    host   base, and what the package depends on; made by installing it, so that its Depends are proven complete, and
           what it recommends
    ceph   base, and what a Ceph cluster of one host needs
    libvirt  base, and what a host of libvirt needs

A tree is a directory of its own, not an overlay layer on the one below: the copy takes a second, and it also works
where the cache itself lies on an overlay, which cannot carry an upper layer. Each is named after a hash of its recipe,
made under another name and renamed when complete.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .machine import CACHE, ENVIRONMENT, LabError, locked, requirements, run, told

RELEASE = "trixie"
RECIPE = 1  # raise it when a tree is to be made otherwise although no list below changes
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
BASE = """
    systemd systemd-sysv dbus libnss-systemd iproute2 ca-certificates procps etcd-server etcd-client
    ovmf qemu-utils prometheus python3-aiosmtpd dma python3-pytest python3-freezegun python3-hypothesis
""".split()  # noqa: SIM905
BUILD = ["build-essential", "lintian"]  # the rest is debian/control's Build-Depends
CEPH = ["ceph-mon", "ceph-osd", "ceph-common"]  # rbd needs no manager
LIBVIRT = ["libvirt-daemon-system", "libvirt-clients", "qemu-system-x86"]
UNUSED_DAYS = 7

# What fails or makes no sense in namespaces, or would act on the machine.
MASKED = """
    getty.target console-getty.service getty@.service serial-getty@.service autovt@.service systemd-firstboot.service
    systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-udev-trigger.service
    systemd-modules-load.service systemd-sysctl.service systemd-remount-fs.service systemd-random-seed.service
    systemd-timesyncd.service systemd-pstore.service systemd-binfmt.service systemd-boot-system-token.service
    systemd-networkd.service systemd-networkd-wait-online.service systemd-resolved.service networking.service
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
    proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount tmp.mount
    e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer man-db.timer fstrim.timer
    dpkg-db-backup.timer ceph.target rbdmap.service prometheus.service
""".split()  # noqa: SIM905
JOURNALD = "[Journal]\nStorage=persistent\nForwardToConsole=no\nRateLimitIntervalSec=0\n"

BOOT = Path(__file__).with_name("boot.sh")
NO_LISTS = "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin"  # or apt reads 92 MB each time that it installs a file
APT = "apt-get --quiet --yes --no-install-recommends -o Dpkg::Use-Pty=0"
# Maintainer scripts ask policy-rc.d before they start a service.
NO_SERVICES = (
    "set -e; rc=/usr/sbin/policy-rc.d; printf '#!/bin/sh\\nexit 101\\n' > $rc; chmod 755 $rc; trap 'rm -f $rc' EXIT\n"
)


def key(*parts: object) -> str:
    """A short hash that changes with any of the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def base() -> Path:
    """The tree of a plain Debian 13 with systemd, etcd and the tools of the tests."""
    requirements()
    name = f"base-{key(RECIPE, RELEASE, BASE, MASKED, JOURNALD)}"
    with made(name, "making the Debian 13 tree, about 30 s, once") as new:
        if new:
            _bootstrap(new)
    return CACHE / name / "tree"


def build(control: Path) -> Path:
    """The tree in which a package is built: base and the Build-Depends of this debian/control."""
    below, source = base(), control.read_text().split("\n\n")[0]
    name = f"build-{key(below.parent.name, BUILD, source)}"
    with made(name, "making the tree that builds the package, about 40 s, once") as new:
        if new:
            run(["cp", "--archive", "--reflink=auto", below, new / "tree"])
            (new / "debian").mkdir()
            # build-dep wants to see a source package: the control file's first paragraph, and a format.
            (new / "debian/control").write_text(control.read_text())
            script = f"{NO_SERVICES} {APT} update; {APT} install {' '.join(BUILD)}; cd /src; {APT} build-dep ./"
            _install(new, script, {new: "/src"})
    return CACHE / name / "tree"


def host(package: Path) -> Path:
    """The tree of a host on which this .deb can be installed without a network; the .deb itself is not in it."""
    below = base()
    fields = run(["dpkg-deb", "--field", package, "Depends", "Pre-Depends", "Recommends"])
    recommended = run(["dpkg-deb", "--field", package, "Recommends"])
    more = " ".join(re.findall(r"(?:^|,)\s*([a-z0-9.+-]+)", recommended))  # of alternatives the first
    name = f"host-{key(below.parent.name, fields, NO_LISTS)}"
    with made(name, "making the tree with what the package depends on, about 40 s, once") as new:
        if new:
            run(["cp", "--archive", "--reflink=auto", below, new / "tree"])
            ours = run(["dpkg-deb", "--field", package, "Package"]).strip()
            script = f"{NO_SERVICES} {APT} update; {APT} install /package/{package.name}; {APT} purge {ours};"
            # Nothing of what these recommend in turn: half a desktop, with qemu.
            script += f" {APT} install {more}" if more else ""
            _install(new, f"{script}; {NO_LISTS}", {package.parent: "/package"})
    return CACHE / name / "tree"


def ceph() -> Path:
    """The tree of a host that is a whole Ceph cluster; see ceph.py."""
    return _with("ceph", CEPH)


def libvirt() -> Path:
    """The tree of a host with libvirt, to compare with."""
    return _with("libvirt", LIBVIRT)


def _with(what: str, packages: Sequence[str]) -> Path:
    below = base()
    name = f"{what}-{key(below.parent.name, packages)}"
    with made(name, f"making the tree with {what}, about 40 s, once") as new:
        if new:
            run(["cp", "--archive", "--reflink=auto", below, new / "tree"])
            _install(new, f"{NO_SERVICES} {APT} update; {APT} install {' '.join(packages)}", {})
    return CACHE / name / "tree"


def inside(
    tree: Path,
    command: Sequence[str],
    binds: Mapping[Path, str] | None = None,
    *,
    network: bool = False,
    keep: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command as root of a tree, in namespaces of its own; stderr goes to stdout.

    binds are writable. What it writes to the tree itself is thrown away, unless `keep`. Without `network` there is only
    a loopback. Whatever it starts ends with it or with us.
    """
    environment = ENVIRONMENT | {
        "LAB_ROOT": str(tree) if keep else "/mnt",
        "LAB_LOWER": "" if keep else str(tree),
        "LAB_BINDS": "\n".join(f"{outside}\t{inside}\trw" for outside, inside in (binds or {}).items()),
        "LAB_NET": "machine" if network else "",
    }
    # setpriv: unshare dies with us, and its child with it.
    words = ["setpriv", "--pdeathsig=KILL", "unshare", "--pid", "--fork", "--kill-child", "--mount", "--ipc", "--uts"]
    words += ["--propagation=private", *([] if network else ["--net"]), "--", "/bin/sh", str(BOOT), "tree", *command]
    return subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True,
        errors="replace", env=environment, cwd="/",
    )  # fmt: skip


def prune() -> None:
    """Remove what no run has used for a week and no lab stands on."""
    for directory in CACHE.glob("*-*"):
        used = directory / "used"
        mark = used if used.exists() else directory  # what an aborted run left has none
        if time.time() - mark.stat().st_mtime < UNUSED_DAYS * 86400:
            continue
        descriptor = os.open(mark, os.O_RDONLY)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        os.close(descriptor)


@contextlib.contextmanager
def made(name: str, what: str) -> Iterator[Path | None]:
    """Give a directory to make the thing of this name in, or None when it has been made before."""
    used = CACHE / name / "used"
    if used.exists():
        used.touch()
        yield None
        return
    with locked(CACHE / f"{name.partition('-')[0]}.lock"):
        if used.exists():
            yield None
            return
        prune()
        new = CACHE / f"{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        with told(what):
            yield new
        (new / "used").touch()
        new.rename(CACHE / name)


def _install(new: Path, script: str, binds: Mapping[Path, str]) -> None:
    done = inside(new / "tree", ["/bin/sh", "-c", script], binds, network=True, keep=True)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-40:])
        raise LabError(f"{new.name}: exit status {done.returncode}\n{tail}")
    for archive in (new / "tree/var/cache/apt/archives").glob("*.deb"):
        archive.unlink()


def _bootstrap(new: Path) -> None:
    tree = new / "tree"
    options = [f"--aptopt={line}" for line in _apt_options()]
    options += ["--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists", "--dpkgopt=force-unsafe-io"]
    options += [f"--include={','.join(BASE)}"]
    # Namespaces of its own, so that an aborted run leaves neither mounts nor processes.
    isolated = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    run([*isolated, "mmdebstrap", *options, RELEASE, tree, *_sources()])
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    # Enabled by its package; tests start it when they want it, or one of their own.
    (tree / "etc/systemd/system/multi-user.target.wants/etcd.service").unlink()
    (tree / "etc/resolv.conf").write_text("")
    (tree / "etc/fstab").write_text("")
    (tree / "etc/systemd/journald.conf.d").mkdir()
    (tree / "etc/systemd/journald.conf.d/lab.conf").write_text(JOURNALD)


def _apt_options() -> list[str]:
    """How the machine reaches its mirror: proxies and, on machines whose clock is off, unchecked dates."""
    kept = ("Acquire::http", "Acquire::Check-")
    return [line for line in run(["apt-config", "dump"]).splitlines() if line.startswith(kept) and '""' not in line]


def _sources() -> list[str]:
    """Our release's lines for sources.list, from the mirrors in the machine's own."""
    wanted = ["Identifier: Packages", "Component: main", "Origin: Debian"]
    command = ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", *wanted]
    if not (found := run(command)):
        run(["apt-get", "--quiet", "update"])  # before the first update apt does not know whose lists are whose
        found = run(command)
    mirrors: dict[str, str] = {}
    for line in found.splitlines():
        label, _, uri = line.partition(" ")
        mirrors.setdefault(label, _resolved(uri))
    if "Debian" not in mirrors:
        raise LabError("apt on this machine knows no Debian mirror")
    suites = {RELEASE: "Debian", f"{RELEASE}-updates": "Debian", f"{RELEASE}-security": "Debian-Security"}
    return [
        f"deb [signed-by={KEYRING}] {mirrors[label]} {suite} main"
        for suite, label in suites.items() if label in mirrors
    ]  # fmt: skip


def _resolved(uri: str) -> str:
    """Debian's cloud images name their mirrors in a file; the tree does not have that file."""
    if not uri.startswith("mirror+file:"):
        return uri
    return Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text().split()[0]


def in_use(tree: Path) -> int | None:
    """A descriptor that keeps a tree from being pruned while it is open; None for a tree outside the cache."""
    used = tree.parent / "used"
    if not used.exists():
        return None
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor
