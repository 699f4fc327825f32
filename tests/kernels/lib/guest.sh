# The guest: an initramfs with the program, its libraries, the kernel's modules and the checks; and the emulator. To be sourced
# by bash.
# shellcheck shell=bash

# copy_program ROOT PROGRAM [PATH]: with the libraries that it is linked with.
copy_program() {
    local library
    install -D "$2" "$1${3:-/bin/$(basename "$2")}"
    # A static program has none.
    { ldd "$2" 2>/dev/null | grep -oE '/[^ ]+' || true; } | while read -r library; do
        [[ -e $1$library ]] || install -D "$library" "$1$library"
    done
}

# build_root ROOT KERNEL_FOLDER WITHOUT EXPECTED CHECKS: the guest's files. WITHOUT is a list of globs of modules to leave out.
build_root() {
    local root=$1 kernel=$2 without=$3 expected=$4 checks=$5 modules glob check
    mkdir -p "$root"/{bin,sbin,expected,etc}
    install "$(fetch_busybox)" "$root/bin/busybox"
    install -m 755 "$here/guest/init" "$root/init"
    cp -r "$here/guest" "$root/guest"
    cp -r "$repository/examples" "$root/examples"
    cp -r "$here/expected/$expected/." "$root/expected/"
    copy_program "$root" "$binary" /bin/palisade
    copy_program "$root" "$(command -v ip)" /usr/sbin/ip
    modules=$root/lib/modules/$(<"$kernel/release")
    mkdir -p "$modules/kernel"
    cp -r "$kernel"/modules/. "$modules/kernel"
    find "$modules/kernel" -maxdepth 1 -name 'modules.*' -exec mv {} "$modules/" \;
    if [[ $without != - ]]; then
        for glob in ${without//,/ }; do
            find "$modules" -name "$glob.ko" -delete
        done
    fi
    for check in ${checks//,/ }; do
        echo "$check $(limit_of "$check")"
    done >"$root/plan"
    printf 'seed=%s\ncases=%s\n' "$seed" "$cases" >"$root/settings"
}

# limit_of CHECK: how many seconds it may take in the emulator, on a machine that does other things too.
limit_of() {
    case $1 in
        examples | fuzz) echo "${PALISADE_KERNELS_LIMIT:-3600}" ;;
        *) echo "${PALISADE_KERNELS_LIMIT:-1200}" ;;
    esac
}

# boot ROOT KERNEL_FOLDER ARGUMENTS: runs the guest until it ends. The console is in $scratch/console, the reports in $scratch/report.
boot() {
    local root=$1 kernel=$2 arguments=$3
    (cd "$root" && find . | bin/busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$scratch/initramfs"
    : >"$scratch/console"
    : >"$scratch/report"
    # Emulation, also where the machine has KVM. The clock is the machine's: with one that counts instructions, guests hung at boot or
    # reset without a message. With the machine busy, the timer's interrupts may come too late for the kernel's check of them at boot, which
    # would panic: no_timer_check leaves it out, as the kernel does by itself under KVM.
    nice -n 5 timeout --kill-after=10 "${PALISADE_KERNELS_TIMEOUT:-3600}" qemu-system-x86_64 \
        -accel tcg -cpu max -smp 2 -m "$memory" -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$scratch/console" -serial "file:$scratch/report" \
        -kernel "$kernel/vmlinuz" -initrd "$scratch/initramfs" \
        -append "console=ttyS0 panic=-1 oops=panic no_timer_check quiet loglevel=4 $arguments" >"$scratch/emulator" 2>&1 </dev/null &
    # In the background, so that a signal to this script ends it at once: see `clean_up`.
    emulator=$!
    local status=0
    wait "$emulator" || status=$?
    emulator=''
    # The serial ports end lines as terminals do.
    sed -i 's/\r*$//' "$scratch/console" "$scratch/report"
    return "$status"
}
