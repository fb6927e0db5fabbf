#!/bin/sh
# Stand-in: dom0's word on the domain's services is a folder that the test shows, with an empty file for each.
mkdir -p /run/qubes-service
for service in /opt/services/*; do
	[ -e "$service" ] && : >"/run/qubes-service/$(basename "$service")"
done
: >/run/qubes-calls
