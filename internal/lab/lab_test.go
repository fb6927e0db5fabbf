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
	os.Exit(m.Run())
}

// newLab makes a lab that is closed with the test, and shows its logs when the test failed.
func newLab(t *testing.T, o Options) (context.Context, *Lab) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	l, err := New(ctx, o)
	if err != nil {
		t.Fatal(err)
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
	start := time.Now()
	ctx, l := newLab(t, Options{})
	t.Logf("built in %v", time.Since(start))
	start = time.Now()
	if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
		t.Fatal(err)
	}
	t.Logf("home up in %v", time.Since(start))
	dnat(ctx, t, l, l.Home.Resolvers[0], l.Home.Resolvers[1])
	for i, v := range Virtual4 {
		for _, q := range []Question{{}, {TCP: true}, {Port: 4053}, {Port: 4053, TCP: true}} {
			a, err := l.Work.Ask(ctx, v, q)
			if err != nil || a.Who != l.Home.Resolvers[i] {
				t.Errorf("%+v to %s: answered by %s, %v; want %s", q, v, a.Who, err, l.Home.Resolvers[i])
			}
			t.Logf("%+v %v", q, a.Took)
		}
	}
	conf, err := l.NetVM.ReadFile("/etc/resolv.conf")
	t.Logf("%s %v", conf, err)

	dnat(ctx, t, l, netip.Addr{}, l.Home.Resolvers[1])
	for _, q := range []Question{{}, {TCP: true}} {
		a, err := l.Personal.Ask(ctx, Virtual4[0], q)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%+v to a virtual address that is rejected: %v from %s; want a refusal", q, err, a.Who)
		}
		t.Logf("%+v %v %v", q, a.Took, err)
	}
}
