package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// counted is what the netvm counts of the packets that come from the pretended addresses, one counter for each kind.
const counted = `
table inet seen {
	counter ping { }
	counter dns { }
	counter dhcp { }
	counter syn { }
	counter rst { }
	counter ping6 { }
	counter dns6 { }
	counter ndp { }
	chain pre {
		type filter hook prerouting priority raw
		ip saddr 10.137.0.99 icmp type echo-request counter name ping
		ip saddr 10.137.0.99 udp dport 53 counter name dns
		ip saddr 10.137.0.99 udp sport 67 udp dport 68 counter name dhcp
		ip saddr 10.137.0.99 tcp dport 80 tcp flags & (syn|rst) == syn counter name syn
		ip saddr 10.137.0.99 tcp dport 80 tcp flags & (syn|rst) == rst counter name rst
		ip6 saddr fd09:24ef:4179::a89:63 icmpv6 type echo-request counter name ping6
		ip6 saddr fd09:24ef:4179::a89:63 udp dport 53 counter name dns6
		ip6 saddr fd09:24ef:4179::a89:63 icmpv6 type nd-neighbor-advert counter name ndp
	}
}
table arp seen {
	counter claim { }
	chain in {
		type filter hook input priority filter
		arp operation reply arp saddr ip 10.137.0.99 counter name claim
	}
}
`

// arriveWithin is how long packets may be on their way; they take microseconds.
const arriveWithin = 5 * time.Second

func TestSpoofSendsEveryKindOfPacketUnderEachAddress(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := lab.New(ctx, lab.Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := l.NetVM.AddCard(l.Work.Card); err != nil {
		t.Fatal(err)
	}
	if _, err := l.NetVM.Run(ctx, "ip", "link", "set", l.Work.Vif, "up"); err != nil {
		t.Fatal(err)
	}
	// What is sent before that is dropped.
	if err := l.Work.AwaitCard(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := l.NetVM.RunInput(ctx, counted, "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	for to, source := range map[string]string{"10.137.0.6": "10.137.0.99", "fd09:24ef:4179::a89:6": "fd09:24ef:4179::a89:63"} {
		if err := l.Work.Do(func() error { return spoof(ctx, []string{"--to", to, source}) }); err != nil {
			t.Fatal(err)
		}
	}
	for began := time.Now(); ; {
		text, err := l.NetVM.Run(ctx, "nft", "list", "counters")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(text, "packets 1 ") == 9 {
			return
		}
		if time.Since(began) > arriveWithin {
			t.Fatalf("not each of the nine kinds arrived once:\n%s", text)
		}
	}
}

func TestSpoofSaysWhatIsWrongOnItsCommandLine(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no address to send to":        {[]string{"10.137.0.99"}, "--to and a SOURCE are needed"},
		"nobody to be":                 {[]string{"--to", "10.137.0.6"}, "--to and a SOURCE are needed"},
		"a source that is none":        {[]string{"--to", "10.137.0.6", "x"}, `ParseAddr("x")`},
		"a source of the other family": {[]string{"--to", "10.137.0.6", "fd09::1"}, "are not of one family"},
		"a gateway that is none":       {[]string{"--gateway", "x", "--to", "10.137.0.6", "10.137.0.99"}, "address x"},
	} {
		t.Run(name, func(t *testing.T) {
			err := spoof(context.Background(), tc.args)
			if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v; want %q and a hint at the usage", err, tc.says)
			}
		})
	}
	if err := spoof(context.Background(), []string{"--device", "none0", "--to", "10.137.0.6", "10.137.0.99"}); err == nil ||
		!strings.Contains(err.Error(), "none0") {
		t.Errorf("a device that is not there: %v", err)
	}
}
