package firewall

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAnAddressLosesItsFlowsAndNobodyElseLosesAny(t *testing.T) {
	for name, list := range map[string]string{"the kernel has its list as text": flowList, "the kernel has no such list": "/nowhere"} {
		t.Run(name, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			b, err := newNFTables(ctx, Options{Log: testLog(t)})
			must(t, err)
			n.admit(ctx, b)
			apply(t, ctx, b, to(virtual1, resolverA), to(virtual6, resolverA6)) // whose queries have zones of their own
			c, err := NewConntrack()
			must(t, err)
			defer c.Close()
			c.list = list
			n.flowsOf(client4, client6)
			n.flowsOf(other4, other6)

			must(t, c.PurgeAddresses(ctx, []netip.Addr{client4}))
			n.wantFlows(client4, 0)
			n.wantFlows(client6, 2)
			must(t, c.PurgeAddresses(ctx, []netip.Addr{client6, client4}))
			n.wantFlows(client6, 0)
			n.wantFlows(other4, 2)
			n.wantFlows(other6, 2)
			must(t, c.PurgeAddresses(ctx, []netip.Addr{resolverA})) // who answers loses them too
			n.wantFlows(other4, 0)
			n.wantFlows(other6, 2)
			must(t, c.PurgeAddresses(ctx, nil))
			n.wantFlows(other6, 2)
		})
	}
}

// flowsOf begins flows of an AppVM's, one of them a query that is translated and has a zone.
func (n *topology) flowsOf(from4, from6 netip.Addr) {
	n.t.Helper()
	appVM := n.client
	if from4 == other4 {
		appVM = n.other
	}
	for _, p := range []packet{
		n.datagram(from4, resolverA, "a flow"), n.datagram(from6, resolverA6, "a flow"),
		n.question(from4, virtual1), n.question(from6, virtual6),
	} {
		n.send(appVM, p)
	}
	n.wantFlows(from4, 2)
	n.wantFlows(from6, 2)
}

// question is a datagram to the DNS port.
func (n *topology) question(from, to netip.Addr) packet {
	p := n.datagram(from, to, "a question")
	p.body[2], p.body[3] = 0, dnsPort
	p.body[6], p.body[7] = 0, 0
	return p.sum(6)
}

// wantFlows wants the kernel to hold that many flows that an address began.
func (n *topology) wantFlows(from netip.Addr, want int) {
	n.t.Helper()
	family := "ipv6"
	if from.Is4() {
		family = "ipv4"
	}
	out := n.run("conntrack", "-L", "-f", family, "-s", from.String())
	if got := strings.Count(out, "src="+from.String()+" "); got != want {
		n.t.Errorf("%s began %d flows, want %d:\n%s", from, got, want, out)
	}
}
