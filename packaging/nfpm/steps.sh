#!/bin/sh
# What the packages' scripts have in common, in every format: build.sh puts this before the package's own steps, and the
# format's own script, which only says when, behind them. No step fails the package manager's work, and none says anything
# while all is well.

# try runs what may fail without harm: it says itself what went wrong, and the installation goes on.
try() { "$@" || :; }

# A template, or a VM that is made from one.
on_qubes() { [ -e /usr/share/qubes/marker-vm ]; }

# systemd runs here, and this is its system: not a folder in which somebody builds one.
system_runs() { [ -d /run/systemd/system ] && ! systemd-detect-virt --quiet --chroot; }

# Has systemd and udev read what was installed, as they do not look by themselves.
announce_units() {
	try systemctl daemon-reload
	if systemctl --quiet is-active systemd-udevd.service; then
		try udevadm control --reload
	fi
}
