#!/bin/busybox sh
# shellcheck shell=dash
# Process 1 of a lab guest: brings the root up, runs one command, tells the lab how it ended.
#
# It runs twice: as /init of the initrd, where it loads modules and mounts the root, and then again
# inside that root, where the shell is still the static busybox of the initrd and its applets come
# before any program of the root.
#
# Lines it sends on the control port:
#   boot              the port is open
#   start             the command is about to run
#   beat              still alive
#   exit N OUT ERR    the command ended with status N after OUT and ERR bytes
#   fail WHY          the guest could not be set up

set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LAB=/run/lab

say() {
	echo "$*" >&9
}

fail() {
	say "fail $*"
	# The lab ends the machine; should it not, the kernel does.
	sleep 20
	exit 1
}

# port NAME: print the device of a virtio port, once it is there.
port() {
	tries=0
	while [ "$tries" -lt 200 ]; do
		for name in /sys/class/virtio-ports/*/name; do
			if [ -e "$name" ] && read -r found <"$name" && [ "$found" = "$1" ]; then
				name=${name%/name}
				echo "/dev/${name##*/}"
				return
			fi
		done
		tries=$((tries + 1))
		usleep 50000
	done
	return 1
}

# disk SERIAL: print the device of a virtio disk.
disk() {
	for serial in /sys/block/vd*/serial; do
		found=
		# There is no newline in that file, so read finds its text and fails.
		if read -r found <"$serial" || [ -n "$found" ]; then
			if [ "$found" = "$1" ]; then
				serial=${serial%/serial}
				echo "/dev/${serial##*/}"
				return
			fi
		fi
	done
	return 1
}

share_9p() {
	mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro" "$1" "$2"
}

first_stage() {
	# The shell finds its applets by way of /proc.
	/bin/busybox mount -t proc proc /proc
	mount -t devtmpfs dev /dev
	mount -t sysfs sys /sys
	while read -r module; do
		insmod "/modules/$module" || echo "lab: cannot load $module" >/dev/kmsg
		# As soon as there is a port the lab is told, and hears beats while the rest loads.
		if [ "$module" = virtio_console.ko ]; then
			open_control
		fi
	done </modules/order
	[ -n "${BEATING:-}" ] || open_control

	mkdir -p /lower/root /lower/kernel /upper /new
	root=$(disk root) || fail "the disk of the root is not there"
	kernel=$(disk kernel) || fail "the disk of the kernel is not there"
	mount -t ext4 -o ro "$root" /lower/root || fail "cannot mount the root"
	mount -t ext4 -o ro "$kernel" /lower/kernel || fail "cannot mount the modules"
	mount -t tmpfs -o size=50% upper /upper
	mkdir /upper/data /upper/work
	layers=lowerdir=/lower/kernel:/lower/root,upperdir=/upper/data,workdir=/upper/work
	mount -t overlay -o "$layers" root /new || fail "cannot lay the root together"
	mount -t tmpfs -o mode=755 run /new/run
	mkdir /new/run/lab
	cp /bin/busybox /lab/init.sh /lab/run.sh /lab/churn /new/run/lab/
	for place in dev sys proc; do
		/bin/busybox mount -o move "/$place" "/new/$place"
	done
	# The programs of the initrd are about to go; the second stage beats again.
	kill "$BEATING"
	exec /bin/busybox switch_root /new /run/lab/busybox sh /run/lab/init.sh second
}

open_control() {
	# 9 stays open for the whole life of the guest.
	device=$(port zpobs.ctl) || exit 1
	exec 9<>"$device" || exit 1
	say boot
	start_beating
}

start_beating() {
	while sleep 5; do
		say beat
	done &
	BEATING=$!
}

mount_all() {
	mkdir -p /dev/pts /dev/shm
	mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	mount -t tmpfs -o mode=1777 tmp /tmp
	mount -t tmpfs -o mode=700 home /root
	mount -t debugfs debug /sys/kernel/debug
	mount -t tracefs trace /sys/kernel/tracing
	mount -t bpf bpf /sys/fs/bpf
	mount -t cgroup2 cgroup /sys/fs/cgroup
	ln -s /proc/self/fd /dev/fd
	ln -s /proc/self/fd/0 /dev/stdin
	ln -s /proc/self/fd/1 /dev/stdout
	ln -s /proc/self/fd/2 /dev/stderr
	ip link set lo up
	hostname lab
	# Writes in the checkout go to memory; the files of the host are only read.
	mkdir -p $LAB/checkout $LAB/over
	share_9p checkout $LAB/checkout || fail "cannot mount the checkout"
	mount -t tmpfs over $LAB/over
	mkdir $LAB/over/data $LAB/over/work
	layers=lowerdir=$LAB/checkout,upperdir=$LAB/over/data,workdir=$LAB/over/work
	mount -t overlay -o "$layers" checkout /checkout || fail "cannot lay the checkout out"
	if [ "$SHARED" = yes ]; then
		share_9p share /mnt/share || fail "cannot mount the shared folder"
	fi
	ln -s $LAB/churn /usr/local/bin/churn
}

# What the command left running would keep its pipes open for ever.
end_leftovers() {
	rounds=0
	while [ "$rounds" -lt 100 ]; do
		left=no
		for process in /proc/[0-9]*; do
			# Threads of the kernel have no program; the lab's own run the lab's busybox.
			# shellcheck disable=SC3013
			if [ -e "$process/exe" ] && ! [ "$process/exe" -ef $LAB/busybox ]; then
				kill -9 "${process#/proc/}" 2>/dev/null && left=yes
			fi
		done
		[ $left = yes ] || return
		rounds=$((rounds + 1))
		usleep 20000
	done
}

# The command itself, run by a program of the root: the shell would prefer applets of busybox.
command_proper() {
	cd /checkout || exit 127
	echo 0 >/proc/self/oom_score_adj
	exec 8>&- 9>&-
	unset OLDPWD SHLVL
	if [ "$TERMINAL" = yes ]; then
		exec setsid -c /usr/bin/env "$@"
	fi
	exec setsid /usr/bin/env "$@"
}

run_piped() {
	out=$(port zpobs.out) || fail "the port of stdout is not there"
	err=$(port zpobs.err) || fail "the port of stderr is not there"
	mkfifo $LAB/out $LAB/err
	# Pipes, because a port can be opened only once and commands do open /dev/stderr again; the
	# counts let the lab know when it has everything.
	{ tee "$out" <$LAB/out | wc -c >$LAB/out.count; } &
	copying_out=$!
	{ tee "$err" <$LAB/err | wc -c >$LAB/err.count; } &
	copying_err=$!
	say start
	(command_proper "$@") </dev/null >$LAB/out 2>$LAB/err
	status=$?
	end_leftovers
	wait $copying_out $copying_err
	read -r out_bytes <$LAB/out.count
	read -r err_bytes <$LAB/err.count
	say "exit $status $out_bytes $err_bytes"
}

run_on_terminal() {
	# Held open: a terminal nobody has open forgets its size.
	exec 8<>/dev/hvc0
	stty rows "$TERMINAL_ROWS" cols "$TERMINAL_COLUMNS" <&8
	say start
	# The lab sends a line whenever its window changes.
	while read -r rows columns <&9; do
		stty rows "$rows" cols "$columns" <&8
	done &
	(command_proper "$@") </dev/hvc0 >/dev/hvc0 2>&1
	status=$?
	end_leftovers
	say "exit $status 0 0"
}

second_stage() {
	echo -1000 >/proc/self/oom_score_adj
	start_beating
	# shellcheck source=/dev/null
	. $LAB/run.sh
	mount_all
	if [ "$TERMINAL" = yes ]; then
		lab_command run_on_terminal
	else
		lab_command run_piped
	fi
	# The lab ends the machine when it has read the status.
	while :; do
		sleep 60
	done
}

if [ "${1:-first}" = second ]; then
	second_stage
else
	first_stage
fi
