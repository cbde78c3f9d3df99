#!/bin/sh
# boot.sh host COMMAND...   first process of a host: enter its cgroup, then do as `tree` does
# boot.sh tree COMMAND...   build the view on a Debian tree and exec COMMAND in it, as the root of a mount namespace
#
# Runs as PID 1 of a new pid namespace, in a mount namespace that is private to it. Environment:
#   LAB_ROOT    where the tree is mounted; with LAB_LOWER an overlay is made there whose upper layer is thrown away
#   LAB_LOWER   lower layers, uppermost first, separated by colons; empty: LAB_ROOT is used as it is
#   LAB_BINDS   lines "OUTSIDE<tab>INSIDE<tab>ro or rw"
#   LAB_NET     "machine": the tree shares the machine's network and needs its resolv.conf
#   LAB_HOST, LAB_CGROUP   name and cgroup directory of a host; empty for a plain tree
# A host writes its pid, as the machine sees it, to stdout and waits for a line on stdin.
set -eu

what=$1; shift
root=${LAB_ROOT:?}

if [ "$what" = host ]; then
    # The machine's /proc is still mounted: its pid namespace's number, not ours, is what the outside needs.
    read -r pid _ < /proc/self/stat
    echo "$pid"
    exec >&2
    # A line comes when the cable is plugged in, end of file when our maker died before that.
    read -r _
    exec </dev/null
    # The cgroup that a process is in when it makes a cgroup namespace becomes the root of that namespace.
    echo 0 > "$LAB_CGROUP/cgroup.procs"
    exec unshare --cgroup -- /bin/sh "$0" tree "$@"
fi

if [ -n "${LAB_LOWER:-}" ]; then
    # An upper layer on the machine's disk fails where that is an overlay itself; on tmpfs it always works.
    mount -t tmpfs -o mode=755 lab "$root"
    mkdir "$root/upper" "$root/work" "$root/root"
    mount -t overlay -o "lowerdir=$LAB_LOWER,upperdir=$root/upper,workdir=$root/work" overlay "$root/root"
    root=$root/root
else
    mountpoint -q "$root" || mount --bind "$root" "$root"
fi

mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,mode=755 dev "$root/dev"
mount -t tmpfs -o nosuid,nodev,mode=755 run "$root/run"

# NAME:MODE of the machine's devices; made anew, so that a chmod inside stays inside.
for device in null:666 zero:666 full:666 random:666 urandom:666 tty:666 fuse:666 net/tun:666 kvm:660 vhost-net:660 \
              vhost-vsock:660; do
    name=${device%:*}
    [ -c "/dev/$name" ] || continue
    mkdir -p "$root/dev/${name%"${name##*/}"}"
    mknod -m "${device#*:}" "$root/dev/$name" c "0x$(stat -c %t "/dev/$name")" "0x$(stat -c %T "/dev/$name")"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o nosuid,nodev shm "$root/dev/shm"
mount -t mqueue mqueue "$root/dev/mqueue"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"; ln -s fd/1 "$root/dev/stdout"; ln -s fd/2 "$root/dev/stderr"

if [ "${LAB_NET:-}" = machine ]; then
    mount --bind /etc/resolv.conf "$root/etc/resolv.conf"
else
    ip link set lo up
fi

printf '%s\n' "${LAB_BINDS:-}" | while IFS="$(printf '\t')" read -r outside inside mode; do
    [ -n "$outside" ] || continue
    if [ -d "$outside" ]; then mkdir -p "$root$inside"; else mkdir -p "$root${inside%/*}"; touch "$root$inside"; fi
    mount --bind "$outside" "$root$inside"
    [ "$mode" = rw ] || mount -o remount,bind,ro "$root$inside"
done

if [ -n "${LAB_HOST:-}" ]; then
    # On a real host udev's package brings the group.
    chroot "$root" groupadd --system --force kvm
    chroot "$root" chgrp kvm /dev/kvm /dev/vhost-net /dev/vhost-vsock 2>/dev/null || :
    mount -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    # As systemd-nspawn does: settings of the shared kernel are read-only, those of our own network are not, and every
    # boot has an id of its own.
    mount --bind "$root/proc/sys" "$root/proc/sys"
    mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
    mount -o remount,bind,ro "$root/proc/sys"
    if [ -e "$root/proc/sysrq-trigger" ]; then
        mount --bind "$root/proc/sysrq-trigger" "$root/proc/sysrq-trigger"
        mount -o remount,bind,ro "$root/proc/sysrq-trigger"
    fi
    cat /proc/sys/kernel/random/uuid > "$root/run/.boot_id"
    mount --bind "$root/run/.boot_id" "$root/proc/sys/kernel/random/boot_id"
    hostname "$LAB_HOST"
fi

cd "$root"
mkdir -p mnt
pivot_root . mnt
umount -l mnt
cd /
# In a container systemd leaves this to its maker; LoadCredential= together with User= fails with EACCES without it.
mount --make-rshared /
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
    TERM=dumb DEBIAN_FRONTEND=noninteractive "$@"
