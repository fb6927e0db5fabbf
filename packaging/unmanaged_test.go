package packaging_test

import (
	"strings"
	"testing"
)

// nmConf is NetworkManager's own configuration, which it reads after those that packages install; idle has it activate
// nothing of its own accord.
const (
	nmConf = "etc/NetworkManager/NetworkManager.conf"
	idle   = "[main]\nno-auto-default=*\n"
)

// knowsDevices has NetworkManager look at the devices that there are.
func (m *machine) knowsDevices() {
	m.t.Helper()
	m.shell("systemctl restart NetworkManager.service && nm-online --wait-for-startup --quiet --timeout=30")
}

func TestNetworkManagerLeavesVifsAlone(t *testing.T) {
	for _, tc := range []struct {
		name    string
		arrange func(*machine)
		udev    bool
	}{
		{"by our snippet", func(*machine) {}, false},
		// In Qubes this line is written anew at every start: network-manager-prepare-conf-dir.
		{"by our snippet, where a file that is read later says the key anew", func(m *machine) {
			m.write(nmConf, idle+"[keyfile]\nunmanaged-devices=mac:fe:ff:ff:ff:ff:ff\n")
		}, false},
		{"by udev, where the snippet is masked", func(m *machine) {
			m.write("etc/NetworkManager/conf.d/30-netvm-vifs.conf", "")
			// NetworkManager's own rules would spare the veths that stand for vifs.
			m.write("usr/lib/udev/rules.d/85-nm-unmanaged.rules", "")
		}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := boot(t, func(m *machine) { m.write(nmConf, idle) }, tc.arrange)
			if tc.udev {
				m.followsDevices()
			}
			// It remembers what it took for managed once.
			m.shell("systemctl stop NetworkManager.service")
			m.shell("ip link add vif9.0 type veth peer name card9 && ip link add other type veth peer name far-other")
			if tc.udev {
				// lo was there before udev was.
				m.shell("mount -o remount,rw /sys/devices && udevadm trigger --settle --subsystem-match=net")
			}
			m.knowsDevices()
			state := func(device string) string {
				return strings.TrimSpace(m.shell("nmcli --get-values GENERAL.STATE device show " + device))
			}
			if got := state("vif9.0"); !strings.HasPrefix(got, "10 ") { // NM_DEVICE_STATE_UNMANAGED
				t.Errorf("vif9.0 is %s", got)
			}
			if got := state("other"); strings.HasPrefix(got, "10 ") {
				t.Errorf("every other device is %s too", got)
			}
		})
	}
}
