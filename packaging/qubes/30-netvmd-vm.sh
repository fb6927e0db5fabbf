#!/bin/sh
# Tells dom0, when it asks a template what it can do, that a domain of it may have the service (qvm-service).
[ -x /usr/bin/netvmctl ] || exit 0 # a file of the configuration may outlive the package
qvm-features-request supported-service.netvm-uplink=1
