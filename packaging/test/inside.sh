#!/usr/bin/env bash
# Runs a program in a root file system of its own, without a network: only a server on 127.0.0.1:8000, which has the release.
#
# usage: packaging/test/inside.sh ROOT RELEASE BAD-RELEASES COMMAND…
# Mounts, processes and links are in namespaces that end with the command. `pivot_root`, and not `chroot`: in a chroot the kernel
# refuses user namespaces, which the lab needs without root.
set -euo pipefail
if [[ ${PALISADE_INSIDE:-} != yes ]]; then
    PALISADE_INSIDE=yes exec unshare --mount --pid --fork --kill-child --net --ipc --uts "$0" "$@"
fi
root=$1 release=$2 bad=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ip link set lo up

exec {server}< <(exec python3 "$here/server.py" 8000 "$release" "$bad" </dev/null)
read -r -t 30 ready <&"$server"
[[ $ready == ready ]]

cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
rmdir /.outside
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"
