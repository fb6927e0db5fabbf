package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if role, ok := os.LookupEnv(roleVariable); ok {
		os.Exit(play(role))
	}
	os.Exit(m.Run())
}

// newLab makes a lab that is closed with the test, and shows its logs when the test failed.
func newLab(t *testing.T) (context.Context, *Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	l, err := New(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []*AppVM{l.Work, l.Personal} {
		attachByHand(ctx, t, l, a)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			showLogs(t)
		}
	})
	return ctx, l
}

// attachByHand brings an AppVM's card up without any program of ours, as these tests are about the lab alone: routed, and
// masqueraded.
func attachByHand(ctx context.Context, t *testing.T, l *Lab, a *AppVM) {
	t.Helper()
	if err := l.NetVM.AddCard(a.Card); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"ip link set " + a.Vif + " group 2 up",
		"ip address add " + gateway.String() + "/32 dev " + a.Vif,
		"ip route add " + a.Address.String() + "/32 dev " + a.Vif,
		"echo 1 > /proc/sys/net/ipv4/ip_forward",
		"nft 'add table ip out; add chain ip out post { type nat hook postrouting priority srcnat; }; add rule ip out post oifgroup 0 masquerade'",
	} {
		if _, err := l.NetVM.Run(ctx, "sh", "-c", line); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.setUplink(ctx); err != nil {
		t.Fatal(err)
	}
}

func showLogs(t *testing.T) {
	logs, err := Logs()
	if err != nil {
		t.Error(err)
	}
	for name, text := range logs {
		t.Logf("--- %s\n%s", name, text)
	}
}

// dnat translates the virtual addresses as netvmd would, by hand; an invalid resolver = refused.
func dnat(ctx context.Context, t *testing.T, l *Lab, resolvers ...netip.Addr) {
	t.Helper()
	rules := "table ip hand\ndelete table ip hand\ntable ip hand {\n"
	nat, reject := "", ""
	for i, r := range resolvers {
		if r.IsValid() {
			nat += fmt.Sprintf("ip daddr %s dnat to %s\n", Virtual4[i], r)
		} else {
			reject += fmt.Sprintf("iifgroup 2 ip daddr %s meta l4proto udp reject with icmp admin-prohibited\n"+
				"iifgroup 2 ip daddr %s meta l4proto tcp reject with tcp reset\n", Virtual4[i], Virtual4[i])
		}
	}
	rules += "chain pre { type nat hook prerouting priority dstnat; " + nat + "}\n"
	rules += "chain refuse { type filter hook forward priority filter; " + reject + "}\n}\n"
	if _, err := l.NetVM.RunInput(ctx, rules, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func TestAppVMsReachTheResolversOfAConnectionThatNetworkManagerBroughtUp(t *testing.T) {
	ctx, l := newLab(t)
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
		t.Fatal(err)
	}
	dnat(ctx, t, l, l.Home.Resolvers[0], l.Home.Resolvers[1])
	for i, v := range Virtual4 {
		for _, q := range []Question{{}, {TCP: true}, {Port: 4053}, {Port: 4053, TCP: true}} {
			a, err := l.Work.Ask(ctx, v, q)
			if err != nil || a.Who != l.Home.Resolvers[i] {
				t.Errorf("%+v to %s: answered by %s, %v; want %s", q, v, a.Who, err, l.Home.Resolvers[i])
			}
		}
	}
}

func TestRefusalAndSilenceAreToldApart(t *testing.T) {
	ctx, l := newLab(t)
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
		t.Fatal(err)
	}
	dnat(ctx, t, l, netip.Addr{}, l.Home.Resolvers[1])
	for _, q := range []Question{{}, {TCP: true}} {
		if a, err := l.Personal.Ask(ctx, Virtual4[0], q); !errors.Is(err, ErrRefused) {
			t.Errorf("%+v to an address that is rejected: %v from %s; want a refusal", q, err, a.Who)
		}
	}
	nobody := addr("192.0.2.99") // the router of home looks for it in vain
	dnat(ctx, t, l, nobody, nobody)
	q := Question{Timeout: 100 * time.Millisecond}
	if a, err := l.Work.Ask(ctx, Virtual4[0], q); !errors.Is(err, ErrTimeout) {
		t.Errorf("to an address that nobody has: %v from %s; want silence", err, a.Who)
	}
}

func TestALoopSeesWhoAnswersAndWhenThatChanges(t *testing.T) {
	ctx, l := newLab(t)
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
		t.Fatal(err)
	}
	old, current := l.Home.Resolvers[0], l.Home.Resolvers[1]
	dnat(ctx, t, l, old, old)
	for name, every := range map[string]time.Duration{"in a tight loop": 0, "at an interval": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			dnat(ctx, t, l, old, old)
			loop := l.Work.AskLoop(ctx, Virtual4[0], Question{}, every)
			for _, who := range []netip.Addr{old, current} {
				dnat(ctx, t, l, who, who)
				if _, err := loop.Await(ctx, time.Now(), func(s Sample) bool { return s.Who == who }); err != nil {
					t.Fatal(err)
				}
			}
			tally := Count(loop.Stop())
			if tally.By[old] == 0 || tally.By[current] == 0 || tally.By[old]+tally.By[current] != tally.Asked {
				t.Errorf("%+v; want all answered, by both resolvers", tally)
			}
		})
	}
}

func TestHostsHaveARoutingTableAndFilesOfTheirOwn(t *testing.T) {
	_, l := newLab(t)
	routes, err := l.Work.Routes()
	if err != nil {
		t.Fatal(err)
	}
	if len(routes) != 1 || routes[0].Gateway != gateway || routes[0].Interface != "eth0" || routes[0].Flags() != "UG" {
		t.Errorf("routes of an AppVM: %+v; want one default route on eth0", routes)
	}
	for host, want := range map[*Host]string{l.Work.Host: "nameserver 10.139.1.1\nnameserver 10.139.1.2\n", l.Home.Host: ""} {
		if got, err := host.ReadFile("/etc/resolv.conf"); err != nil || string(got) != want {
			t.Errorf("%s: resolv.conf is %q, %v; want %q", host.Name, got, err, want)
		}
	}
}
