#!/bin/sh
# PID 1 of the lab's guest. Kernel parameters: lab.modules=a,b (insmod order is the file's),
# lab.mount=vda:/mnt/vda,vdb:/mnt/vdb  lab.agent=off  lab.writer=/mnt/vda
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mkdir -p /proc /sys /dev /run /tmp /mnt /etc
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
ln -sf /proc/mounts /etc/mtab
echo "lab-guest: init"

parameter() { # the value of $1 on the kernel command line, empty without
    tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"
}

while read -r module; do
    insmod "/modules/$module" || echo "lab-guest: module $module failed"
done </modules/order

wait_for() { # a path, up to 10 s: devices appear a moment after their driver
    n=0
    while [ ! -e "$1" ] && [ $n -lt 200 ]; do
        n=$((n + 1))
        usleep 50000
    done
    [ -e "$1" ]
}

for pair in $(parameter lab.mount | tr ',' ' '); do
    device=/dev/${pair%%:*}
    directory=${pair#*:}
    mkdir -p "$directory"
    wait_for "$device"
    mount -t ext4 "$device" "$directory" || mount -t ext4 -o ro "$device" "$directory" ||
        echo "lab-guest: cannot mount $device"
done

agent() { # udev would have made the link; a new agent is started when one ends
    mkdir -p /dev/virtio-ports /run/agent
    for port in /sys/class/virtio-ports/*; do
        [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ] || continue
        ln -sf "/dev/${port##*/}" /dev/virtio-ports/org.qemu.guest_agent.0
    done
    while wait_for /dev/virtio-ports/org.qemu.guest_agent.0; do
        /bin/qemu-ga -m virtio-serial -p /dev/virtio-ports/org.qemu.guest_agent.0 -t /run/agent
        sleep 1
    done
}
[ "$(parameter lab.agent)" = off ] || agent &

writer() { # numbered lines, each on the disk before the next: a backup sees a prefix of them
    line=0
    while :; do
        line=$((line + 1))
        echo "line $line" | dd of="$1/writer.log" oflag=append conv=notrunc,fsync 2>/dev/null
        # Each line is four programs, and they are slow under emulation.
        usleep 200000
    done
}
writer_directory=$(parameter lab.writer)
if [ -n "$writer_directory" ]; then
    writer "$writer_directory" &
    echo $! >/run/writer.pid
fi

power_button() { # QEMU's ACPI button is an input device
    event=$(awk '/^N:/ { button = /Power Button/ } /^H:/ && button { print $NF; exit }' \
        /proc/bus/input/devices | sed 's/.*=//')
    [ -n "$event" ] || return
    head -c 1 "/dev/input/$event" >/dev/null && /sbin/shutdown
}
power_button &

echo "lab-guest: booted"
while :; do
    wait
    sleep 1
done
