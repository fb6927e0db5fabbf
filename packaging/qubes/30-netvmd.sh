#!/bin/sh
# Tells dom0, when it asks a template what it can do, which services a domain of it may have (qvm-service).
[ -x /usr/bin/netvmd ] || exit 0 # a file of the configuration may outlive the package
qvm-features-request supported-service.netvmd=1 supported-service.netvmd-vifs=1
