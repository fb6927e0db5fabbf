# shellcheck shell=sh
# What the first programs of all domains share; busybox sh and bash both read it.

export PATH=/bin:/usr/bin:/usr/sbin

# Seconds that anything may take that must come. Ten times as long as it does, as others may use the machine too.
export PATIENCE=60

# begin makes the domain habitable and takes the console.
begin() {
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t devtmpfs dev /dev
	mkdir -p /dev/pts
	mount -t devpts devpts /dev/pts
	mount -t tmpfs tmpfs /tmp
	exec >/dev/hvc0 2>&1 </dev/hvc0
	# What the kernel says is kept for dmesg; on the console only what is urgent may come between the answers.
	dmesg -n 2
	ip link set lo up
}

# serve runs every line `TAG COMMAND` that comes over the console, in a shell of its own. Each line of its output goes
# back as `TAG | OUTPUT`, and its exit code as `TAG = CODE`.
serve() {
	stty -echo
	while read -r tag command; do
		{
			(eval "$command") </dev/null
			echo $? >/tmp/code
		} 2>&1 | sed "s/^/$tag | /"
		echo "$tag = $(cat /tmp/code)"
	done
}

# until_true SECONDS COMMAND...: runs the command until it succeeds, and prints what it said last if it never does.
until_true() {
	deadline=$(($(uptime_seconds) + $1))
	shift
	until said=$("$@" 2>&1); do
		if [ "$(uptime_seconds)" -ge "$deadline" ]; then
			echo "$said"
			return 1
		fi
		sleep 0.2
	done
}

uptime_seconds() { cut -d . -f 1 /proc/uptime; }
