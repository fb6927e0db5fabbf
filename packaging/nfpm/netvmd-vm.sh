# shellcheck shell=sh
# What the package netvmd-vm does when it comes and goes. It never changes the network of a machine that runs: that is the
# admin's decision, and is made anew at each boot.

installed() {
	system_runs || return 0
	announce_units
	if ! on_qubes && netvmctl uplink show >/dev/null 2>&1; then
		echo "netvmd-vm sets up this machine's network at the next boot. systemctl start netvm-uplink@eth0 does it now, for eth0."
	fi
}

# The new program takes over from the old one.
upgraded() {
	system_runs || return 0
	announce_units
	keeping_network try-restart
}

removing() {
	system_runs || return 0
	keeping_network stop
}

removed() {
	system_runs || return 0
	announce_units
}

# Nothing was written but below /run, by which a reinstallation knows the network that it set up.
purged() { :; }

# Does something to the units without what they do when they stop, which is to take the network down.
keeping_network() {
	folder=/run/systemd/system/netvm-uplink@.service.d
	mkdir -p "$folder"
	printf '[Service]\nExecStopPost=\n' >"$folder/keep-network.conf"
	try systemctl daemon-reload
	try systemctl "$1" 'netvm-uplink@*.service'
	rm "$folder/keep-network.conf"
	rmdir --ignore-fail-on-non-empty "$folder"
	try systemctl daemon-reload
}
