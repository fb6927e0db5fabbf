package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// chain is a scene of three levels: the netvm, a proxy that it serves, and an AppVM that the proxy serves.
type chain struct {
	*scene
	proxy *lab.Proxy
	inner *lab.AppVM
}

// openChain opens one with all three up and netvmd in both netvms. The netvm is at home, with fixed resolvers.
func openChain(t *testing.T, o, proxy lab.Options) *chain {
	t.Helper()
	s := open(t, o)
	c := &chain{scene: s}
	t.Cleanup(func() {
		logs, err := lab.Logs()
		if err == nil && t.Failed() {
			t.Logf("the proxy's netvmd:\n%s", logs["proxy-netvmd"])
		}
	})
	s.start()
	s.nmcli("connection", "up", "home-static")
	var err error
	c.proxy, c.inner, err = s.Chain(s.ctx, proxy, netvmctl)
	s.must(err)
	return c
}

// with is the chain for a subtest.
func (c *chain) with(t *testing.T) *chain { return &chain{c.scene.with(t), c.proxy, c.inner} }

// step is a subtest that begins where the one before ended.
func (c *chain) step(name string, f func(c *chain)) {
	c.t.Helper()
	if !c.t.Run(name, func(t *testing.T) { f(c.with(t)) }) {
		c.t.FailNow()
	}
}

// middle waits until the proxy's netvmd says what holds wants.
func (c *chain) middle(holds func(netvm.Status) bool) netvm.Status {
	c.t.Helper()
	status, err := c.proxy.Await(c.ctx, holds)
	c.must(err)
	return status
}

// innermost checks which resolvers answer the AppVM behind the proxy at virtual addresses, over UDP and TCP; none = refused.
func (c *chain) innermost(virtual []netip.Addr, want ...netip.Addr) {
	c.t.Helper()
	for i, w := range want {
		for _, q := range []lab.Question{{}, {TCP: true}} {
			a, err := c.inner.Ask(c.ctx, virtual[i], q)
			switch {
			case w == none && !errors.Is(err, lab.ErrRefused):
				c.t.Errorf("%+v to %s: answered by %s, %v; want a refusal", q, virtual[i], a.Who, err)
			case w != none && (err != nil || a.Who != w):
				c.t.Errorf("%+v to %s: answered by %s, %v; want %s", q, virtual[i], a.Who, err, w)
			}
		}
	}
}

// online is a chained netvm that passes queries on.
func online(s netvm.Status) bool {
	return s.State == netvm.Online && lab.LeadsTo(lab.Virtual4...)(s)
}

// untouched are the proxy's rules with their handles, and how often its netvmd has written to the kernel.
func (c *chain) untouched() string {
	c.t.Helper()
	rules, err := c.proxy.Run(c.ctx, "nft", "--handle", "--stateless", "list", "ruleset")
	c.must(err)
	status, err := c.proxy.Status(c.ctx)
	c.must(err)
	return fmt.Sprintf("%s%d applies, %d restored", rules, status.Statistics.Applies, status.Statistics.Restored)
}

// uplinkChanges are how often the netvm at the top changes its resolvers under load.
const uplinkChanges = 200

func TestAChainOfThreeLevels(t *testing.T) {
	c := openChain(t, lab.Options{}, lab.Options{})
	home := c.Home.Resolvers
	c.step("the proxy is online through the netvm above, without NetworkManager", func(c *chain) {
		status := c.middle(online)
		want := netvm.Uplink{Type: netvm.TypeNetVM, Interface: "eth0", Gateway: c.NetVM.Gateway,
			Addresses: []netip.Prefix{netip.PrefixFrom(c.proxy.Uplink.Address, 32), netip.PrefixFrom(c.proxy.Uplink.Address6, 128)}}
		if len(status.Uplinks) != 1 || fmt.Sprint(status.Uplinks[0]) != fmt.Sprint(want) {
			c.t.Errorf("its uplinks are %+v, want %+v", status.Uplinks, want)
		}
		if status.DNSSource != "store" || !status.Served || len(status.Problems) > 0 {
			c.t.Errorf("resolvers from %s (%s), served: %t, problems: %q", status.DNSSource, status.DNSReason, status.Served, status.Problems)
		}
	})
	c.step("queries go end to end", func(c *chain) { c.innermost(lab.Virtual4, home[0], home[1]) })
	c.step("what the store says of the netvm above is followed", (*chain).storeChanges)
	c.step("another network at the top changes nothing below", (*chain).changesAtTheTop)
	c.step("the top offline is a refusal at the bottom", func(c *chain) {
		before := c.untouched()
		c.nmcli("connection", "down", "home-static")
		c.await(none, none)
		c.innermost(lab.Virtual4, none, none)
		c.nmcli("connection", "up", "home-static")
		c.await(home[0], home[1])
		c.innermost(lab.Virtual4, home[0], home[1])
		if after := c.untouched(); after != before {
			c.t.Errorf("the proxy changed from\n%s to\n%s", before, after)
		}
	})
	c.step("the proxy's netvmd may die", func(c *chain) {
		before := c.untouched()
		c.must(c.proxy.KillNetvmd(c.ctx))
		c.innermost(lab.Virtual4, home[0], home[1])
		c.must(c.proxy.StartNetvmd(c.ctx))
		c.middle(online)
		if _, err := c.proxy.Netvmd().AwaitLog(c.ctx, 0, "took over: the kernel is already as wanted"); err != nil {
			c.t.Error(err)
		}
		c.innermost(lab.Virtual4, home[0], home[1])
		if rulesOf(before) != rulesOf(c.untouched()) {
			c.t.Error("the rules are others after the restart")
		}
	})
	c.step("the proxy's link down and up", (*chain).linkDownAndUp)
}

// rulesOf leaves out the counts, which begin anew with netvmd.
func rulesOf(untouched string) string {
	return untouched[:strings.LastIndexByte(untouched, '}')]
}

// storeChanges has the toolstack name other nameservers, and another netvm or none above.
func (c *chain) storeChanges() {
	home, v := c.Home.Resolvers, lab.Virtual4
	primary := func(a netip.Addr) { c.proxy.QubesDB.Set("/qubes-primary-dns", a.String()) }
	primary(v[1])
	c.middle(lab.LeadsTo(v[1], v[1]))
	c.innermost(v, home[1], home[1])
	primary(v[0])
	c.middle(online)

	keys := c.ProxyKeys()
	for _, key := range []string{"/qubes-primary-dns", "/qubes-ip"} {
		c.proxy.QubesDB.Delete(key)
	}
	c.middle(func(s netvm.Status) bool { return !s.Served && s.State == netvm.Offline && lab.LeadsTo(none, none)(s) })
	c.innermost(v, none, none)
	for _, key := range []string{"/qubes-ip", "/qubes-primary-dns"} {
		c.proxy.QubesDB.Set(key, keys[key])
	}
	c.middle(online)
	c.innermost(v, home[0], home[1])
}

// changesAtTheTop has the AppVM at the bottom ask in loops while the top changes its resolvers.
func (c *chain) changesAtTheTop() {
	before := c.untouched()
	home := c.Home.Resolvers
	loops := map[string]*lab.Loop{
		// So few that those which wait while nothing else gets the processor find room in the resolver's socket.
		"from fresh ports": c.inner.AskLoop(c.ctx, lab.Virtual4[0], lab.Question{}, 5*time.Millisecond),
		"from one port":    c.inner.AskLoop(c.ctx, lab.Virtual4[1], lab.Question{Port: 4053}, 0),
	}
	w := c.NetVM.Watch(c.ctx)
	defer w.Close()
	for i := range uplinkChanges {
		first := i % 2
		c.must(c.NetVM.SetResolvers(c.ctx, c.Home.Device, home[first], home[first+1]))
		_, err := w.Await(c.ctx, lab.LeadsTo(home[first], home[first+1]))
		c.must(err)
	}
	for name, loop := range loops {
		samples := loop.Stop()
		tally := lab.Count(samples)
		inRow, longest := 0, 0
		for _, s := range samples {
			if inRow++; s.Err == nil {
				inRow = 0
			}
			longest = max(longest, inRow)
		}
		c.t.Logf("%d changes at the top, queries %s: %d asked, %d lost, %d refused, %d failed, slowest %s", uplinkChanges, name,
			tally.Asked, tally.Lost, tally.Refused, tally.Failed, tally.Slowest.Round(100*time.Microsecond))
		if longest > 1 || tally.Failed > 0 || tally.Asked < uplinkChanges {
			c.t.Errorf("%s: %d queries in a row without an answer, one retry is allowed: %+v", name, longest, tally)
		}
	}
	if after := c.untouched(); after != before {
		c.t.Errorf("the proxy changed from\n%s to\n%s", before, after)
	}
	c.must(c.NetVM.SetResolvers(c.ctx, c.Home.Device, home[0], home[1]))
	c.await(home[0], home[1])
}

// offline is a chained netvm without a way to the netvm above.
func offline(s netvm.Status) bool {
	return s.State == netvm.Offline && len(s.Uplinks) == 0 && lab.LeadsTo(none, none)(s) && len(s.Problems) == 0
}

// linkDownAndUp takes the way to the netvm above away: first the carrier, at the other end, which leaves the routes as they
// are; then the proxy's own device.
func (c *chain) linkDownAndUp() {
	home := c.Home.Resolvers
	c.must(c.NetVM.KillNetvmd(c.ctx)) // it would mend its vif
	c.run("ip link set " + c.proxy.Uplink.Vif + " down")
	c.middle(offline)
	c.innermost(lab.Virtual4, none, none)
	c.start()
	c.middle(online)
	c.must(c.proxy.Uplink.AwaitCard(c.ctx)) // netvmd hears of the carrier before packets pass
	c.innermost(lab.Virtual4, home[0], home[1])

	c.inProxy("ip link set eth0 down")
	c.middle(offline)
	c.innermost(lab.Virtual4, none, none)
	c.must(c.proxy.UplinkUp(c.ctx, netvmctl))
	c.middle(online)
	c.must(c.proxy.Uplink.AwaitCard(c.ctx))
	c.innermost(lab.Virtual4, home[0], home[1])
}

// inProxy runs a shell command in the proxy and returns what it printed.
func (c *chain) inProxy(command string) string {
	c.t.Helper()
	out, err := c.proxy.Run(c.ctx, "sh", "-ec", command)
	c.must(err)
	return out
}

// spoofed is how many packets a netvm has dropped as they came under an address that the vif does not have.
func (c *chain) spoofed(v *lab.NetVM) int {
	c.t.Helper()
	out, err := v.Run(c.ctx, "nft", "list", "counters")
	c.must(err)
	total := 0
	for _, found := range spoofedPackets.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(found[1])
		c.must(err)
		total += n
	}
	return total
}

var spoofedPackets = regexp.MustCompile(`counter spoofed \{\s*packets ([0-9]+)`)

// forged are queries and pings to the Internet under addresses that the domain does not have.
func (c *chain) forged(by *lab.AppVM, sources ...netip.Addr) []lab.Frame {
	c.t.Helper()
	own, err := net.ParseMAC(by.Card.MAC)
	c.must(err)
	vif, err := net.ParseMAC(lab.VifMAC)
	c.must(err)
	var out []lab.Frame
	for _, from := range sources {
		to := []netip.Addr{lab.Internet, lab.Virtual4[0]}
		if from.Is6() {
			to = []netip.Addr{c.Home.Router6.Addr()}
		}
		for _, to := range to {
			for _, body := range []lab.Body{lab.UDP{FromPort: 4000, ToPort: 53, Payload: []byte("forged")}, lab.Echo{ID: 7, Payload: []byte("forged")}} {
				out = append(out, lab.Packet{FromMAC: own, ToMAC: vif, From: from, To: to, Body: body})
			}
		}
	}
	return out
}

func TestNobodyInAChainSendsAsSomebodyElse(t *testing.T) {
	c := openChain(t, lab.Options{}, lab.Options{})
	c.middle(online)
	top, middle := c.spoofed(c.NetVM), c.spoofed(c.proxy.NetVM)
	must := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d forged packets are dropped and counted, want %d", what, got, want)
		}
	}

	// The AppVM at the bottom sends as another AppVM, as the proxy, as the netvm and as a server: the proxy drops that.
	frames := c.forged(c.inner, c.Work.Address, c.proxy.Uplink.Address, c.NetVM.Gateway, lab.Internet, c.Work.Address6, c.NetVM.Gateway6)
	c.must(c.inner.Send(c.ctx, "eth0", frames...))
	c.innermost(lab.Virtual4, c.Home.Resolvers[0]) // what was sent before it has been seen
	must("in the middle", c.spoofed(c.proxy.NetVM)-middle, len(frames))
	must("at the top", c.spoofed(c.NetVM)-top, 0)

	// The proxy sends as its AppVM, which the netvm does not know, as an AppVM of the netvm, and as a server.
	frames = c.forged(c.proxy.Uplink, c.inner.Address, c.Work.Address, lab.Internet, c.inner.Address6)
	c.must(c.proxy.Send(c.ctx, "eth0", frames...))
	c.innermost(lab.Virtual4, c.Home.Resolvers[0])
	must("at the top", c.spoofed(c.NetVM)-top, len(frames))
}

func TestIPv6GoesThroughAChain(t *testing.T) {
	virtual := slices.Concat(lab.Virtual4[:1], lab.Virtual6[:1])
	c := openChain(t, lab.Options{Virtual: virtual}, lab.Options{Virtual: virtual,
		QubesDB: map[string]string{"/qubes-secondary-dns": lab.Virtual6[0].String()}})
	four, six := c.Home.Resolvers[0], c.Home.Resolvers[3]
	c.nmcli("connection", "modify", "home-static", "ipv6.method", "manual", "ipv6.addresses", c.Home.NetVM6.String()+"/64",
		"ipv6.gateway", c.Home.Router6.Addr().String(), "ipv6.dns", six.String())
	c.nmcli("connection", "up", "home-static")
	c.await(four, six)
	c.middle(lab.LeadsTo(virtual...))
	c.innermost(virtual, four, six)
}

func TestNetworkManagerInAChainedNetvmIsTheSourceAsEver(t *testing.T) {
	c := openChain(t, lab.Options{}, lab.Options{})
	c.middle(online)
	c.must(c.proxy.StartNetworkManager(c.ctx))
	// It takes the device over as it finds it, and at first does not look at the route.
	c.middle(func(s netvm.Status) bool { return s.NMRunning && len(s.Uplinks) > 0 && online(s) })
	own := netip.PrefixFrom(c.proxy.Uplink.Address, 32).String()
	c.must(c.proxy.NMCLI(c.ctx, "connection", "add", "type", "ethernet", "ifname", "eth0", "con-name", "up", "ipv4.method", "manual",
		"ipv4.addresses", own, "ipv4.gateway", c.NetVM.Gateway.String(), "ipv4.dns", lab.Virtual4[1].String(), "ipv6.method", "disabled"))
	c.must(c.proxy.NMCLI(c.ctx, "connection", "up", "up"))
	c.middle(func(s netvm.Status) bool {
		return s.DNSSource == "networkmanager" && s.State == netvm.Online && lab.LeadsTo(lab.Virtual4[1], lab.Virtual4[1])(s) &&
			len(s.Uplinks) == 1 && s.Uplinks[0].ID == "up"
	})
	c.innermost(lab.Virtual4, c.Home.Resolvers[1], c.Home.Resolvers[1])

	c.must(c.proxy.KillNetworkManager(c.ctx))
	status := c.middle(func(s netvm.Status) bool { return !s.NMRunning && online(s) })
	if status.Uplinks[0].Type != netvm.TypeNetVM || status.DNSSource != "store" {
		t.Errorf("when it is gone: %+v", status)
	}
	c.innermost(lab.Virtual4, c.Home.Resolvers[0], c.Home.Resolvers[1])
}
