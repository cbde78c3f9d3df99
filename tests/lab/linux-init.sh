#!/bin/sh
# First process of the Linux guest. It says what the guest got, then obeys the ACPI power button and letters on ttyS0:
#     p  power off    r  reboot    x  panic    n  say the facts again    1 to 9  ping this number of its own network
# `ignore` on the kernel's command line: deaf to the power button. Addresses are those of cloud-init's network-config, if
# it has lines like `eth1:` and `addresses: [10.9.0.1/24]`.
# Values are read by the shell itself where it can: under TCG a new process costs 20 ms.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
dmesg -n 1 # the kernel's messages would come in the middle of the facts

cd /modules || exit
while read -r module; do insmod "$module"; done < order
cd /

# value FILE: what is in its first line; nothing if it is not there.
value() { line=; [ ! -e "$1" ] || read -r line < "$1"; echo "$line"; }

# slot DEVICE: where on the PCI bus it is, like 10.0. The last one counts, what is before are bridges.
slot() { found=${1##*/0000:00:}; echo "${found%%/*}"; }

disk() {
    path=$(readlink -f "$1")
    case $path in
        *ata*/sr*) bus=cdrom ;;
        *ata*) bus=ide ;;
        *virtio*/sd*) bus=scsi ;;
        *) bus=virtio ;;
    esac
    serial=$(value "$1/serial")
    # Page 0x80 of SCSI, which disks of ATA have, too: 4 bytes, then the serial number.
    [ ! -e "$1/device/vpd_pg80" ] || serial=$(tail -c +5 "$1/device/vpd_pg80" | tr -d ' \0')
    cache=$(value "$1/queue/write_cache")
    echo "FACTS disk ${1##*/} sectors=$(value "$1/size") ro=$(value "$1/ro") serial=$serial" \
         "discard=$(value "$1/queue/discard_max_bytes") cache=${cache#write } bus=$bus slot=$(slot "$path")"
}

nic() {
    path=$(readlink -f "$1/device")
    driver=$(readlink -f "$1/device/driver")
    echo "FACTS nic ${1##*/} mac=$(value "$1/address") mtu=$(value "$1/mtu") slot=$(slot "$path") driver=${driver##*/}"
}

there() { if [ -e "$1" ]; then echo yes; else echo no; fi; }

facts() {
    firmware=bios
    [ ! -d /sys/firmware/efi ] || firmware=efi
    echo "FACTS uuid=$(value /sys/class/dmi/id/product_uuid) cpus=$(nproc)" \
         "memkb=$(awk '/MemTotal/ {print $2}' /proc/meminfo) firmware=$firmware boots=$boots"
    awk -F '\t*: ' '/^physical id/ {sockets[$2]} /^siblings/ {siblings = $2} /^cpu cores/ {cores = $2}
         /^model name/ {model = $2}
         END {for (socket in sockets) count++
              print "FACTS cpu sockets=" count " cores=" cores " threads=" siblings / cores " model=" model}' /proc/cpuinfo
    for path in /sys/block/vd* /sys/block/sd* /sys/block/sr*; do [ ! -e "$path" ] || disk "$path"; done
    for path in /sys/class/net/eth*; do [ ! -e "$path" ] || nic "$path"; done
    rng=no agent=no
    grep -q virtio_rng /sys/class/misc/hw_random/rng_available && rng=yes
    grep -qx org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name 2>/dev/null && agent=yes
    echo "FACTS rng=$rng balloon=$(there /sys/bus/virtio/drivers/virtio_balloon/virtio*)" \
         "pvpanic=$(there /sys/bus/acpi/devices/QEMU0001:00) agent=$agent screen=$(there /sys/bus/pci/devices/0000:00:02.0)"
    echo "FACTS cmdline $(value /proc/cmdline)"
    for file in /seed/*; do
        [ ! -f "$file" ] || awk -v name="${file##*/}" '{print "SEED " name ": " $0}' "$file"
    done
    echo "FACTS end"
}

# Each boot with UEFI is counted in a variable of its own: 4 bytes of attributes (kept, for all), then the number.
boots=
variable=/sys/firmware/efi/efivars/LabBoots-5d3b1b56-3f59-4a83-9a1a-2b7c1d9f0e11
if mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null; then
    boots=1
    if [ -e $variable ]; then
        boots=$(($(tail -c +5 $variable) + 1))
        chattr -i $variable
    fi
    printf '\007\000\000\000%s' $boots > $variable
fi

if seed=$(findfs LABEL=cidata 2>/dev/null) && mount -t iso9660 -o ro "$seed" /seed; then
    awk '/^ *eth[0-9]: *$/ {sub(":", ""); nic = $1}
         /addresses:/ {gsub("[][]", ""); print "ip address add " $2 " dev " nic "; ip link set " nic " up"}' \
        /seed/network-config 2>/dev/null | sh
fi

# greet NUMBER
greet() {
    network=$(ip -4 address show scope global | awk '/inet/ {print $2; exit}')
    peer=${network%.*}.$1
    if ping -q -c 1 -w 5 "$peer" > /dev/null; then echo "GUEST $peer answers"; else echo "GUEST $peer is silent"; fi
}

if ! grep -qw ignore /proc/cmdline; then
    acpid -c /etc/acpi -l /dev/null
    # A button pressed before acpid listens is lost; nobody presses it before GUEST-UP.
    until for file in /proc/[0-9]*/fd/*; do readlink "$file"; done | grep -q /dev/input/event; do usleep 10000; done
fi
echo "GUEST-UP after $(cut -d' ' -f1 /proc/uptime)"
facts

while :; do
    # shellcheck disable=SC3045  # busybox has it
    read -r -n 1 letter < /dev/console || sleep 1
    case $letter in
        p) poweroff -f ;;
        r) reboot -f ;;
        x) echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger ;;
        n) facts ;;
        [1-9]) greet "$letter" ;;
    esac
done
