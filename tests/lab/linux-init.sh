#!/bin/sh
# First process of the Linux guest. It says what the guest got, then obeys the ACPI power button and letters on ttyS0:
#     p  power off    r  reboot    x  panic    n  say the facts again
# `ignore` on the kernel's command line: deaf to the power button.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

# Thrice instead of modprobe and its dependencies.
for _ in 1 2 3; do
    for module in /modules/*.ko; do insmod "$module" 2>/dev/null; done
done

facts() {
    echo "FACTS uuid=$(cat /sys/class/dmi/id/product_uuid) cpus=$(nproc) memkb=$(awk '/MemTotal/ {print $2}' /proc/meminfo)"
    for disk in /sys/block/vd* /sys/block/sd* /sys/block/sr*; do
        [ -e "$disk" ] || continue
        echo "FACTS disk ${disk##*/} sectors=$(cat "$disk/size") ro=$(cat "$disk/ro")" \
             "serial=$(cat "$disk/serial" 2>/dev/null) discard=$(cat "$disk/queue/discard_max_bytes")"
    done
    for nic in /sys/class/net/eth*; do
        [ -e "$nic" ] && echo "FACTS nic ${nic##*/} mac=$(cat "$nic/address") mtu=$(cat "$nic/mtu")"
    done
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
    esac
done
