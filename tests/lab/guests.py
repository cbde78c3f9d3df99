"""Guests for the VMs of the tests: 512 bytes that boot in 0.1 s under TCG, and a Linux that boots in about 4 s,
with UEFI in 6.

Both are made of what Debian ships and cached like the trees; take copies of what a guest shall write to.
"""

import graphlib
import re
import shutil
import subprocess
from pathlib import Path

from . import tree
from .machine import CACHE, LabError, requirements, run

HERE = Path(__file__).parent
RECIPE = 2  # raise it when the ISO is to be made otherwise although no list below changes
KERNEL = "linux-image-amd64"  # not the cloud kernel: it has no drivers for e1000 and rtl8139
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
# What a guest needs to see its disks, nics, console and power button, and to say that it panics.
MODULES = (  # noqa: SIM905
    "drivers/acpi/button drivers/input/evdev drivers/misc/pvpanic/* drivers/char/hw_random/virtio-rng"
    " drivers/char/virtio_console drivers/virtio/virtio_balloon drivers/block/virtio_blk drivers/net/virtio_net"
    " net/core/failover drivers/net/net_failover drivers/net/ethernet/intel/e1000/*"
    " drivers/net/ethernet/intel/e1000e/* drivers/ptp/ptp drivers/pps/pps_core drivers/net/ethernet/realtek/8139*"
    " drivers/net/mii"
    " drivers/ata/ahci drivers/ata/libahci drivers/ata/libata drivers/ata/ata_piix drivers/scsi/scsi_common"
    " drivers/scsi/scsi_mod drivers/scsi/virtio_scsi drivers/scsi/sd_mod drivers/scsi/sr_mod drivers/cdrom/cdrom"
    " fs/isofs/isofs fs/efivarfs/efivarfs"
).split()
ALIGNED = 4096  # where sections of a program for UEFI may begin
BUTTON = '#!/bin/sh\necho "GUEST power button" > /dev/console\nsync\npoweroff -f\n'
APPEND = "console=ttyS0 panic=0"
ISOLINUX = f"SERIAL 0\nDEFAULT linux\nLABEL linux\nKERNEL /vmlinuz\nINITRD /initrd\nAPPEND {APPEND}\n"


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
    """An ISO with Debian's kernel and busybox, which BIOS and UEFI boot, from a CD-ROM or a disk.

    `vmlinuz` and `initrd` lie beside it. Prints GUEST-UP and FACTS lines on ttyS0. See linux-init.sh for what it obeys.
    """
    below, init = tree.base(), HERE / "linux-init.sh"
    name = f"linux-{tree.key(below.parent.name, init.read_text(), RECIPE, KERNEL, MODULES, BUTTON, ISOLINUX)}"
    with tree.made(name, "making the Linux guest, about 10 s, once") as new:
        if new:
            _unpack(below, new)
            _initrd(new, init)
            _uefi(new)
            _iso(new)
    return CACHE / name / "linux.iso"


def _unpack(below: Path, new: Path) -> None:
    """Fetch kernel and busybox with the tree's apt and unpack them, uninstalled, into new/unpacked."""
    script = (
        f"set -e; cd /new; mkdir unpacked; apt-get -q update; kernel=$(apt-cache depends {KERNEL} |"
        " awk '/Depends: linux-image/ {print $2; exit}');"
        " apt-get -q download $kernel busybox-static systemd-boot-efi;"
        " for deb in *.deb; do dpkg-deb --extract $deb unpacked; done"
    )
    done = tree.inside(below, ["/bin/sh", "-c", script], {new: "/new"}, network=True)
    if done.returncode:
        raise LabError(f"cannot fetch the guest's kernel:\n{done.stdout}")
    (kernel,) = (new / "unpacked/boot").glob("vmlinuz-*")
    kernel.rename(new / "vmlinuz")


def _initrd(new: Path, init: Path) -> None:
    root = new / "initrd.d"
    for directory in ("bin", "dev", "proc", "sys", "modules", "seed", "tmp", "var/run", "etc/acpi/PWRF"):
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
    (root / "modules/order").write_text("".join(f"{name}.ko\n" for name in _in_order(root / "modules")))
    shutil.copy2(init, root / "init")
    (root / "etc/acpi/PWRF/00000080").write_text(BUTTON)
    for program in (root / "init", root / "etc/acpi/PWRF/00000080"):
        program.chmod(0o755)
    names = "\0".join(sorted(str(path.relative_to(root)) for path in root.rglob("*")))
    command = f"cd {root} && cpio --quiet --null --create --format=newc --owner=0:0 | gzip -1 > {new}/initrd"
    subprocess.run(["/bin/sh", "-c", command], input=names.encode(), check=True)
    (unpacked / STUB).rename(new / "stub")
    shutil.rmtree(unpacked)
    for deb in new.glob("*.deb"):
        deb.unlink()


def _in_order(modules: Path) -> list[str]:
    """Sort modules so that each comes after those that it depends on: depmod's work, which is not in the package."""
    needs = {path.stem.replace("-", "_"): (path.stem, _depends(path)) for path in sorted(modules.glob("*.ko"))}
    graph = {module: needed & needs.keys() for module, (_, needed) in needs.items()}
    return [needs[module][0] for module in graphlib.TopologicalSorter(graph).static_order()]


def _depends(module: Path) -> set[str]:
    found = re.search(rb"\0depends=([^\0]*)\0", module.read_bytes())
    return set(found[1].decode().replace("-", "_").split(",")) if found else set()


def _uefi(new: Path) -> None:
    """Make what UEFI boots: a FAT with one program, which is kernel, initrd and command line behind systemd's stub."""
    (new / "cmdline").write_text(APPEND)
    sections = run(["objdump", "--section-headers", new / "stub"]).split("\n")
    ends = [int(size, 16) + int(start, 16) for _, _, size, start, *_ in map(str.split, filter(_is_section, sections))]
    start, words = max(ends), list[str | Path]()
    for name, file in ((".cmdline", "cmdline"), (".linux", "vmlinuz"), (".initrd", "initrd")):
        start = (start + ALIGNED - 1) // ALIGNED * ALIGNED
        words += ["--add-section", f"{name}={new / file}", "--change-section-vma", f"{name}={start:#x}"]
        start += (new / file).stat().st_size
    run(["objcopy", *words, new / "stub", new / "boot.efi"])
    size = (new / "boot.efi").stat().st_size // 1024 + 1024
    run(["mformat", "-i", new / "efi.img", "-C", "-T", str(size * 2), "-h", "16", "-s", "32", "::"])
    run(["mmd", "-i", new / "efi.img", "::/EFI", "::/EFI/BOOT"])
    run(["mcopy", "-i", new / "efi.img", new / "boot.efi", "::/EFI/BOOT/BOOTX64.EFI"])


def _is_section(line: str) -> bool:
    """Tell whether objdump says here where a section is: ` 3 .data  000090a0  0000000000016000 ...`."""
    return line.strip()[:1].isdigit()


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
    boot += ["-append_partition", "2", "0xef", str(new / "efi.img"), "-eltorito-alt-boot"]
    boot += ["-e", "--interval:appended_partition_2:all::", "-no-emul-boot"]
    run(["xorriso", "-as", "mkisofs", "-quiet", "-o", str(new / "linux.iso"), *boot, str(disc)])
    shutil.rmtree(disc)
    shutil.rmtree(new / "initrd.d")
    for name in ("stub", "cmdline", "boot.efi", "efi.img"):
        (new / name).unlink()
