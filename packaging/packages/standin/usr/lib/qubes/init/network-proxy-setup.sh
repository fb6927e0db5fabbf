#!/bin/sh
echo network-proxy-setup.sh >>/run/qubes-calls
echo 1 >/proc/sys/net/ipv4/ip_forward
/usr/lib/qubes/qubes-setup-dnat-to-ns
