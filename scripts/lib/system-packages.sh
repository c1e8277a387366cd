#!/usr/bin/env bash
# Installs the system packages that the checks, the lab and the demo need, if any is missing.
# Run by scripts/test and scripts/demo; needs neither root nor a network when all is there.
# Enables and starts nothing: the lab runs a libvirt daemon of its own.
set -euo pipefail

# What is looked for: programs, a pkg-config module, and drivers of the daemon: for guests, for the
# secrets of encrypted disks, for volumes of storage pools.
readonly PROGRAMS=(qemu-system-x86_64 qemu-img qemu-nbd qemu-storage-daemon virsh pkg-config gcc
    mkfs.ext4 cpio unshare
    swtpm_setup nbdkit nbdcopy nbdinfo qemu-io mkfs.btrfs mkfs.xfs fincore xz bzip2 zstd groff systemd-analyze
    chromedriver jq tmux sshd ssh)
readonly DRIVERS=(qemu secret storage)
readonly DEBIAN=(qemu-system-x86 qemu-utils libvirt-clients libvirt-daemon
    libvirt-daemon-driver-qemu libvirt-daemon-driver-secret libvirt-daemon-driver-storage
    libvirt-dev pkg-config gcc python3-dev python3-venv e2fsprogs cpio
    swtpm swtpm-tools nbdkit libnbd-bin btrfs-progs xfsprogs
    util-linux util-linux-extra xz-utils bzip2 zstd groff-base systemd
    chromium chromium-driver fonts-dejavu-core jq tmux openssh-client openssh-server)
readonly FEDORA=(qemu-system-x86-core qemu-img libvirt-client libvirt-daemon-driver-qemu
    libvirt-daemon-driver-secret libvirt-daemon-driver-storage-core
    libvirt-devel pkgconf-pkg-config gcc python3-devel e2fsprogs cpio util-linux swtpm swtpm-tools
    kernel-core kernel-modules busybox qemu-guest-agent nbdkit libnbd btrfs-progs xfsprogs
    xz bzip2 zstd groff-base systemd chromium chromedriver dejavu-sans-fonts jq tmux
    openssh-clients openssh-server)
readonly ARCH=(qemu-system-x86 qemu-img libvirt pkgconf gcc python e2fsprogs cpio swtpm
    linux busybox qemu-guest-agent nbdkit libnbd btrfs-progs xfsprogs util-linux xz bzip2 zstd
    groff systemd chromium ttf-dejavu jq tmux openssh)

missing() { # what is not here, one a line; nothing when all is
    # /usr/sbin is not on every user's path.
    local PATH=$PATH:/usr/sbin:/sbin program
    for program in "${PROGRAMS[@]}"; do
        command -v "$program" >/dev/null || echo "$program"
    done
    command -v libvirtd >/dev/null || command -v virtqemud >/dev/null || echo libvirtd
    local driver
    for driver in "${DRIVERS[@]}"; do
        compgen -G "/usr/lib*/libvirt/connection-driver/libvirt_driver_$driver.so" >/dev/null ||
            compgen -G "/usr/lib/*/libvirt/connection-driver/libvirt_driver_$driver.so" \
                >/dev/null ||
            echo "libvirt-$driver-driver"
    done
    pkg-config --exists libvirt 2>/dev/null || echo libvirt-headers
    python_headers || echo python-headers-and-venv
}

python_headers() { # of the Python that scripts/lib/venv.sh picks: libvirt-python is compiled
    local python
    python=$("$(dirname "${BASH_SOURCE[0]}")/venv.sh" --python 2>/dev/null) || return 1
    "$python" - 2>/dev/null <<'PYTHON'
import ensurepip, pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").exists())
PYTHON
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "system packages: this needs root or sudo: $*" >&2
        exit 2
    fi
}

# Debian starts and enables a server that it installs: none of the daemons is wanted but by tests.
readonly POLICY=/usr/sbin/policy-rc.d
is_new_sshd= is_new_policy=

asleep_begin() {
    command -v sshd >/dev/null || [ -e /usr/sbin/sshd ] || is_new_sshd=1
    [ -e $POLICY ] || is_new_policy=1
    [ -z "$is_new_policy" ] ||
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$POLICY && chmod 755 $POLICY"
}

asleep_end() {
    [ -z "$is_new_policy" ] || as_root rm -f $POLICY
    if [ -n "$is_new_sshd" ] && command -v systemctl >/dev/null; then
        as_root systemctl disable --quiet ssh.service ssh.socket 2>/dev/null || true
    fi
}

apt_install() {
    # Package names differ by release: what this one does not have is left out, and noticed below.
    local name known=()
    as_root apt-get update -qq
    for name in "${DEBIAN[@]}"; do
        if apt-cache show "$name" >/dev/null 2>&1; then known+=("$name"); fi
    done
    asleep_begin
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${known[@]}" >/dev/null || {
        asleep_end
        return 1
    }
    asleep_end
}

install_packages() {
    if command -v apt-get >/dev/null; then
        apt_install
    elif command -v dnf >/dev/null; then
        as_root dnf install -y -q --setopt=install_weak_deps=False "${FEDORA[@]}"
    elif command -v pacman >/dev/null; then
        as_root pacman -Sy --needed --noconfirm "${ARCH[@]}" >/dev/null
    else
        echo "system packages: no apt-get, dnf or pacman here; please install what Debian calls:" \
            "${DEBIAN[*]}" >&2
        exit 2
    fi
}

main() {
    local lacking
    lacking=$(missing)
    if [ -z "$lacking" ]; then
        return
    fi
    echo "system packages: installing for ${lacking//$'\n'/ }"
    install_packages
    lacking=$(missing)
    if [ -n "$lacking" ]; then
        echo "system packages: still missing after the installation: ${lacking//$'\n'/ }" >&2
        exit 2
    fi
}

main
