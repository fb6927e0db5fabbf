package netvm_test

import (
	"testing"

	"netvmd/internal/netvm"
)

func TestWhoseWordOnTheWayOutCounts(t *testing.T) {
	managed, chained := []netvm.Uplink{{ID: "home"}}, []netvm.Uplink{{Interface: "eth0"}}
	for name, tc := range map[string]struct {
		running     bool
		managed     []netvm.Uplink
		state       netvm.State
		chained     netvm.State
		want        netvm.State
		throughEth0 bool
	}{
		"NetworkManager's alone":                    {running: true, managed: managed, state: netvm.Portal, want: netvm.Portal},
		"NetworkManager's, also in a chained netvm": {running: true, managed: managed, state: netvm.Limited, chained: netvm.Online, want: netvm.Limited},
		"while it is connecting":                    {running: true, state: netvm.Connecting, chained: netvm.Online, want: netvm.Connecting},
		"the kernel's, if it has no uplink":         {running: true, state: netvm.Offline, chained: netvm.Online, want: netvm.Online, throughEth0: true},
		"the kernel's, if it does not run":          {managed: managed, state: netvm.Online, chained: netvm.Offline, want: netvm.Offline, throughEth0: true},
		"its last word, where no netvm is above":    {managed: managed, state: netvm.Limited, want: netvm.Limited},
	} {
		t.Run(name, func(t *testing.T) {
			v := netvm.View{State: tc.state, Uplinks: tc.managed, Chained: netvm.Chained{State: tc.chained}}
			v.NetworkManager.Running = tc.running
			if tc.chained != "" {
				v.Chained.Uplinks = chained
			}
			state, uplinks := v.WayOut()
			if state != tc.want || (len(uplinks) > 0 && uplinks[0].Interface == "eth0") != tc.throughEth0 {
				t.Errorf("%s through %+v, want %s", state, uplinks, tc.want)
			}
		})
	}
}
