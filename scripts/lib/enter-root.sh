#!/usr/bin/env bash
# Makes a directory the root of this mount namespace, and runs a command there in /project.
#   enter-root.sh ROOT COMMAND...
# Called by scripts/platforms as the first process of new mount and process namespaces: whatever is
# mounted or started here ends with it.
set -euo pipefail

ROOT=$1
shift

mount --bind "$ROOT" "$ROOT"
cd "$ROOT"
# The network is the host's, and so is how it is reached.
cat /etc/resolv.conf >etc/resolv.conf
cat /etc/hosts >etc/hosts
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir run/lock
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -f "$certificates" ] || cp "$certificates" run/certificates.crt
find tmp -mindepth 1 -delete
mkdir -p host
pivot_root . host
umount --lazy /host

proxies=()
for name in http_proxy https_proxy no_proxy PIP_INDEX_URL PIP_DEFAULT_TIMEOUT; do
    [ -z "${!name:-}" ] || proxies+=("$name=${!name}")
done
[ ! -f /run/certificates.crt ] || proxies+=(PIP_CERT=/run/certificates.crt)
cd /project
# Not exec: the first process of a namespace is the parent of all orphans, and has to take note of
# their ends, as this shell does. libvirt waits for a killed guest until somebody has.
env --ignore-environment HOME=/root LANG=C.UTF-8 "TERM=${TERM:-dumb}" "${proxies[@]}" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    VIRTBACKUP_VENV=/var/lib/virtbackup-venv "$@"
