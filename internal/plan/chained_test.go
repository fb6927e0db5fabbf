package plan

import (
	"testing"

	"netvmd/internal/netvm"
)

// above is a netvm above that gives Qubes' nameservers, over a link in a state.
func above(link netvm.State) env {
	return func(in *Inputs) {
		in.PassThrough, in.Above = true, addrs(qubes)
		in.View.State = netvm.Offline
		in.View.Chained.State = link
	}
}

const passedThrough = `
store: another netvm serves this one, and nobody here names other resolvers
10.139.1.1 -> 10.139.1.1
10.139.1.2 -> 10.139.1.2
`

func TestAChainedNetvmTakesWhatTheNetvmAboveGivesIt(t *testing.T) {
	checkDecisions(t, []decisionCase{
		{"virtual addresses pass through", environment(above(netvm.Online)), passedThrough},
		{"also without a default route", environment(above(netvm.Limited)), passedThrough},
		{"also beside a NetworkManager that knows no resolver", environment(above(netvm.Online), nm("eth0 100")), passedThrough},
		{"what a NetworkManager said that is gone does not count", environment(above(netvm.Online), nm("eth0 100 192.0.2.53"), nmGone), passedThrough},
		{"a resolv.conf that netvmctl wrote says the same, and is no source", environment(above(netvm.Online),
			file(netvm.ResolvConfNetvmctl, "10.139.1.9")), passedThrough},
		{"without a link they are refused, and that is no problem of DNS", environment(above(netvm.Offline)), `
store: another netvm serves this one, and nobody here names other resolvers; there is no link to it now
10.139.1.1 -> refused
10.139.1.2 -> refused
`},
		{"NetworkManager's resolvers count if it runs", environment(above(netvm.Online), nm("eth0 100 192.0.2.53")), `
networkmanager: neither systemd-resolved nor another program's resolv.conf takes precedence
10.139.1.1 -> 192.0.2.53 eth0
10.139.1.2 -> 192.0.2.53 eth0
`},
		{"a VPN's resolv.conf counts", environment(above(netvm.Online), file(netvm.ResolvConfOther, "10.8.0.1")), `
resolv.conf: /etc/resolv.conf was written by another program than NetworkManager and systemd-resolved
10.139.1.1 -> 10.8.0.1
10.139.1.2 -> 10.8.0.1
`},
		{"systemd-resolved counts", environment(above(netvm.Online), resolved("eth0/10.139.1.1")), `
resolved: systemd-resolved is running
10.139.1.1 -> 10.139.1.1 eth0
10.139.1.2 -> 10.139.1.1 eth0
`},
	})
}
