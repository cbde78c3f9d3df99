"""Guests for the VMs of the tests: 512 bytes that boot in 0.1 s under TCG, and a Linux that boots in about 4 s.

Both are made of what Debian ships and cached like the trees; take copies of what a guest shall write to.
"""

import shutil
import subprocess
from pathlib import Path

from . import tree
from .machine import CACHE, LabError, requirements, run

HERE = Path(__file__).parent
RECIPE = 1  # raise it when the ISO is to be made otherwise although no list below changes
KERNEL = "linux-image-cloud-amd64"
# What a guest needs to see its disks, nics, console and power button, and to say that it panics.
MODULES = (  # noqa: SIM905
    "drivers/acpi/button drivers/input/evdev drivers/virtio/* drivers/block/virtio_blk drivers/net/virtio_net"
    " net/core/failover drivers/net/net_failover drivers/misc/pvpanic/* drivers/char/hw_random/*rng*"
    " drivers/ata/ahci drivers/ata/libahci drivers/ata/libata drivers/scsi/scsi_common drivers/scsi/scsi_mod"
    " drivers/scsi/virtio_scsi drivers/scsi/sd_mod drivers/scsi/sr_mod drivers/cdrom/cdrom"
).split()
BUTTON = '#!/bin/sh\necho "GUEST power button" > /dev/console\nsync\npoweroff -f\n'
ISOLINUX = "SERIAL 0\nDEFAULT linux\nLABEL linux\nKERNEL /vmlinuz\nINITRD /initrd\nAPPEND console=ttyS0 panic=0\n"


def tiny() -> Path:
    """A raw disk of 1 MiB with the small guest; prints `TINY-GUEST boot <n>w` on COM1. See tiny.S for what it obeys."""
    requirements()
    source = HERE / "tiny.S"
    name = f"tiny-{tree.key(source.read_text())}"
    with tree.made(name, "assembling the tiny guest") as new:
        if new:
            run(["as", "--32", "-o", new / "tiny.o", source])
            layout = ["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary"]
            run(["ld", *layout, "-o", new / "tiny.raw", new / "tiny.o"])
            with (new / "tiny.raw").open("r+b") as disk:
                disk.truncate(1 << 20)
    return CACHE / name / "tiny.raw"


def linux() -> Path:
    """A bootable ISO with Debian's cloud kernel and busybox; `vmlinuz` and `initrd` lie beside it.

    Prints GUEST-UP and FACTS lines on ttyS0. See linux-init.sh for what it obeys.
    """
    below, init = tree.base(), HERE / "linux-init.sh"
    name = f"linux-{tree.key(below.parent.name, init.read_text(), RECIPE, KERNEL, MODULES, BUTTON, ISOLINUX)}"
    with tree.made(name, "making the Linux guest, about 10 s, once") as new:
        if new:
            _unpack(below, new)
            _initrd(new, init)
            _iso(new)
    return CACHE / name / "linux.iso"


def _unpack(below: Path, new: Path) -> None:
    """Fetch kernel and busybox with the tree's apt and unpack them, uninstalled, into new/unpacked."""
    script = (
        f"set -e; cd /new; mkdir unpacked; apt-get -q update; kernel=$(apt-cache depends {KERNEL} |"
        " awk '/Depends: linux-image/ {print $2; exit}'); apt-get -q download $kernel busybox-static;"
        " for deb in *.deb; do dpkg-deb --extract $deb unpacked; done"
    )
    done = tree.inside(below, ["/bin/sh", "-c", script], {new: "/new"}, network=True)
    if done.returncode:
        raise LabError(f"cannot fetch the guest's kernel:\n{done.stdout}")
    (kernel,) = (new / "unpacked/boot").glob("vmlinuz-*")
    kernel.rename(new / "vmlinuz")


def _initrd(new: Path, init: Path) -> None:
    root = new / "initrd.d"
    for directory in ("bin", "dev", "proc", "sys", "modules", "tmp", "var/run", "etc/acpi/PWRF"):
        (root / directory).mkdir(parents=True)
    unpacked = new / "unpacked"
    (busybox,) = [path for path in unpacked.glob("**/bin/busybox") if not path.is_symlink()]
    shutil.copy2(busybox, root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    for pattern in MODULES:
        for module in unpacked.glob(f"**/kernel/{pattern}.ko*"):
            shutil.copy2(module, root / "modules")
    if packed := list((root / "modules").glob("*.xz")):  # whether modules are compressed depends on the release
        run(["xz", "--decompress", *map(str, packed)])
    shutil.copy2(init, root / "init")
    (root / "etc/acpi/PWRF/00000080").write_text(BUTTON)
    for program in (root / "init", root / "etc/acpi/PWRF/00000080"):
        program.chmod(0o755)
    names = "\0".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    command = f"cd {root} && cpio --quiet --null --create --format=newc --owner=0:0 | gzip -1 > {new}/initrd"
    subprocess.run(["/bin/sh", "-c", command], input=names.encode(), check=True)
    shutil.rmtree(unpacked)
    for deb in new.glob("*.deb"):
        deb.unlink()


def _iso(new: Path) -> None:
    disc = new / "disc"
    disc.mkdir()
    for path in (Path("/usr/lib/ISOLINUX/isolinux.bin"), Path("/usr/lib/syslinux/modules/bios/ldlinux.c32")):
        shutil.copy2(path, disc)
    for name in ("vmlinuz", "initrd"):
        shutil.copy2(new / name, disc)
    (disc / "isolinux.cfg").write_text(ISOLINUX)
    boot = ["-b", "isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]
    boot += ["-isohybrid-mbr", "/usr/lib/ISOLINUX/isohdpfx.bin"]  # boots as a disk, too
    run(["xorriso", "-as", "mkisofs", "-quiet", "-o", str(new / "linux.iso"), *boot, str(disc)])
    shutil.rmtree(disc)
    shutil.rmtree(new / "initrd.d")
