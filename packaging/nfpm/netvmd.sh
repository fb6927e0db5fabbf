# shellcheck shell=sh
# What the package netvmd does when it comes and goes.

# In the order in which they start.
units='netvmd-firewall.service netvmd.service netvmd-vifs.service'

# Has what was installed read, by those who do not look by themselves.
announce_files() {
	try systemd-tmpfiles --create netvmd.conf
	announce_units
	if systemctl --quiet is-active NetworkManager.service; then
		try nmcli general reload conf
	fi
}

# Starts a unit as the distribution wants it: Debian's admins may forbid packages to start anything (policy-rc.d).
start() {
	if command -v deb-systemd-invoke >/dev/null; then
		try deb-systemd-invoke start "$1"
	else
		try systemctl start "$1"
	fi
}

# The units' conditions hold.
is_wanted() { ! on_qubes || [ -e /run/qubes-service/netvmd ]; }

# There are vifs of which netvmd has no record.
has_strangers() {
	for vif in /sys/class/net/vif*; do
		if [ -e "$vif" ] && [ ! -e "/run/netvmd/vifs/${vif##*/}.json" ]; then
			return 0
		fi
	done
	return 1
}

# On Qubes the units are enabled, and start where the domain's service is on. Elsewhere starting is the admin's decision, as
# the firewall closes the machine itself too.
installed() {
	if on_qubes; then
		# shellcheck disable=SC2086 # they are several
		try systemctl --quiet --no-reload preset $units
	else
		echo 'netvmd does not run yet: its firewall closes this machine too, ssh included. systemctl enable --now netvmd starts it.'
	fi
	system_runs || return 0
	announce_files
	for unit in $units; do
		if ! systemctl --quiet is-enabled "$unit"; then
			continue
		fi
		if is_wanted && has_strangers; then
			echo 'netvmd starts with the next boot: its rules would cut off AppVMs whose network cards it has not brought up.'
			return 0
		fi
		start "$unit"
	done
}

# What runs goes on while the files are replaced, and the new program takes over from the old one without dropping a flow.
# The firewall is reloaded, never stopped: it loads what is missing.
upgraded() {
	system_runs || return 0
	announce_files
	try systemctl try-reload-or-restart netvmd-firewall.service
	try systemctl try-restart netvmd.service netvmd-vifs.service
}

# Disabled first, so that no caller on the bus starts netvmd again.
removing() {
	# shellcheck disable=SC2086 # they are several
	try systemctl --quiet disable $units
	system_runs || return 0
	try systemctl stop netvmd-vifs.service netvmd.service netvmd-firewall.service
	hand_back
}

# The kernel's rules go back to Qubes' scripts, where there are any. Rules that nobody takes over stay while AppVMs live by
# them.
hand_back() {
	qubes=/usr/lib/qubes/qubes-setup-dnat-to-ns
	if [ -x "$qubes" ] && nft list table ip qubes >/dev/null 2>&1; then
		try "$qubes"
	fi
	if ! netvmctl firewall unload >/dev/null; then
		echo 'netvmd: its rules stay in the kernel until the next boot, so that running AppVMs keep their network' >&2
	fi
}

# The records of vifs that are up stay: a reinstallation takes over by them.
removed() {
	if system_runs; then
		try systemctl daemon-reload
		# One that runs has Qubes' scripts covered still, and would call them only when it has started anew.
		try systemctl try-restart NetworkManager-dispatcher.service
	fi
	for vif in /sys/class/net/vif*; do
		if [ -e "$vif" ]; then
			return 0
		fi
	done
	# What netvmd-vm keeps there of the machine's own network is not netvmd's.
	if [ -d /run/netvmd ]; then
		find /run/netvmd -mindepth 1 -maxdepth 1 ! -name uplinks -exec rm -rf {} +
		rmdir --ignore-fail-on-non-empty /run/netvmd
	fi
}

# What the programs wrote, and the folder of the configuration, unless the admin has something there.
purged() {
	rm -rf /var/lib/netvmd
	if [ -d /etc/netvmd ]; then
		rmdir --ignore-fail-on-non-empty /etc/netvmd
	fi
}
