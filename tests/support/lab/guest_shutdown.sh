#!/bin/sh
# /sbin/shutdown of the lab's guest: called by the agent (guest-shutdown) and by the power button.
[ ! -f /run/writer.pid ] || kill -9 "$(cat /run/writer.pid)"
sync
grep ' ext4 ' /proc/mounts | while read -r _ directory _; do
    umount "$directory" || mount -o remount,ro "$directory"
done
echo "lab-guest: power off" >/dev/console
case "$*" in
*-r*) reboot -f ;;
*-H*) halt -f ;;
*) poweroff -f ;;
esac
