// Package packaging holds what is installed beside the programs. The lab runs its bus with these very files.
package packaging

import _ "embed" // the files

// BusPolicy says who may be netvmd, and who may speak with it: /usr/share/dbus-1/system.d/org.qubes_os.NetVM1.conf.
//
//go:embed dbus-1/org.qubes_os.NetVM1.conf
var BusPolicy string

// PolkitPolicy names what polkit is asked about, and what it answers while no rule says otherwise:
// /usr/share/polkit-1/actions/org.qubes_os.NetVM1.policy.
//
//go:embed polkit/org.qubes_os.NetVM1.policy
var PolkitPolicy string
