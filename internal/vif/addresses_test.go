package vif

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// patience is how long a test waits for what must happen. It is only reached by a failing test.
const patience = 20 * time.Second

// inNamespace names the variable that says that the test runs in a network namespace of its own. The whole
// process does, not one thread: what is tested works on whatever thread the runtime gives it.
const inNamespace = "NETVMD_TEST_IN_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Getenv(inNamespace) != "" {
		os.Exit(m.Run())
	}
	again := exec.Command("/proc/self/exe", os.Args[1:]...)
	again.Env = append(os.Environ(), inNamespace+"=1")
	again.Stdin, again.Stdout, again.Stderr = os.Stdin, os.Stdout, os.Stderr
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := again.Run(); err != nil {
		if again.ProcessState == nil {
			fmt.Fprintf(os.Stderr, "these tests need root, to make a network namespace: %v\n", err)
		}
		os.Exit(1)
	}
}

// follow runs an OwnAddresses until the test ends.
func follow(t *testing.T) *OwnAddresses {
	t.Helper()
	o := NewOwnAddresses(slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end with its context")
		}
	})
	return o
}

// until takes the addresses until they are as wanted.
func until(t *testing.T, o *OwnAddresses, want ...string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case <-o.Changed():
			var got []string
			for _, a := range o.Take() {
				got = append(got, a.String())
			}
			if slices.Equal(got, want) {
				return
			}
		case <-deadline:
			t.Fatalf("the addresses are %v and never became %v", o.Take(), want)
		}
	}
}

func device(t *testing.T, name string) netlink.Link {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "p"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatalf("add %s: %v", name, err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) }) // some tests delete it themselves
	return link
}

func change(t *testing.T, do func(netlink.Link, *netlink.Addr) error, link netlink.Link, prefix string) {
	t.Helper()
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		t.Fatal(err)
	}
	if err := do(link, addr); err != nil {
		t.Fatalf("%s on %s: %v", prefix, link.Attrs().Name, err)
	}
}

func TestTheFirstTokenComesEvenWithoutAnAddress(t *testing.T) {
	until(t, follow(t))
}

func TestAddressesAreFollowedAsTheyComeAndGo(t *testing.T) {
	link := device(t, "own0")
	change(t, netlink.AddrAdd, link, "192.0.2.1/24")
	o := follow(t)
	until(t, o, "192.0.2.1")
	change(t, netlink.AddrAdd, link, "192.0.2.2/24")
	until(t, o, "192.0.2.1", "192.0.2.2")
	change(t, netlink.AddrAdd, link, "2001:db8::1/64")
	until(t, o, "192.0.2.1", "192.0.2.2", "2001:db8::1")
	change(t, netlink.AddrDel, link, "192.0.2.1/24") // takes the secondary along, ip-sysctl promote_secondaries
	if err := netlink.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	until(t, o)
}

func TestNoTokenComesWhenTheSetIsTheSame(t *testing.T) {
	a, b := device(t, "own1"), device(t, "own2")
	change(t, netlink.AddrAdd, a, "192.0.2.1/24")
	o := follow(t)
	until(t, o, "192.0.2.1")
	change(t, netlink.AddrAdd, b, "192.0.2.1/32")     // the same address elsewhere
	change(t, netlink.AddrReplace, a, "192.0.2.1/24") // announced all the same
	change(t, netlink.AddrAdd, b, "198.51.100.1/32")
	select {
	case <-o.Changed():
	case <-time.After(patience):
		t.Fatal("no token for a new address")
	}
	want := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")}
	if got := o.Take(); !slices.Equal(got, want) {
		t.Errorf("the first token was for %v, want %v", got, want)
	}
}

func TestABurstOfChangesEndsInTheRightSet(t *testing.T) {
	link := device(t, "own3")
	o := follow(t)
	until(t, o)
	var want []string
	for i := range 4000 {
		prefix := fmt.Sprintf("10.%d.%d.1/24", i/250, i%250)
		change(t, netlink.AddrAdd, link, prefix)
		if i < 3990 {
			change(t, netlink.AddrDel, link, prefix)
		} else {
			want = append(want, prefix[:len(prefix)-3])
		}
	}
	until(t, o, want...)
}

func TestRefreshReturnsWhenTheAddressesCanBeTaken(t *testing.T) {
	o := NewOwnAddresses(nil) // which follows nothing yet
	if err := o.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-o.Changed():
	default:
		t.Fatal("the first addresses are no token")
	}
	before := o.Take()
	if err := o.Refresh(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(o.Changed()) != 0 || !slices.Equal(o.Take(), before) {
		t.Errorf("the same addresses again are news: %v, %v", before, o.Take())
	}
}
