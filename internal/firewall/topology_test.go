package firewall

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// patience bounds every wait of the tests; a test that holds never waits so long.
const patience = 10 * time.Second

// silence is how long a client waits before it says that nobody answered.
const silence = 3 * time.Second

var (
	virtual1 = netip.MustParseAddr("10.139.1.1")
	virtual2 = netip.MustParseAddr("10.139.1.2")
	virtual6 = netip.MustParseAddr("fd09:24ef:4179::a8b:101")

	resolverA  = netip.MustParseAddr("192.0.2.1")
	resolverB  = netip.MustParseAddr("192.0.2.2")
	resolverC  = netip.MustParseAddr("192.0.2.3")
	resolverA6 = netip.MustParseAddr("2001:db8::1")
	resolverB6 = netip.MustParseAddr("2001:db8::2")
)

// Addresses of the two AppVMs, and of the netvm towards them and towards the uplink.
var (
	client4, client6   = netip.MustParseAddr("10.137.0.5"), netip.MustParseAddr("fd09:24ef:4179::a89:5")
	other4, other6     = netip.MustParseAddr("10.137.0.6"), netip.MustParseAddr("fd09:24ef:4179::a89:6")
	gateway4, gateway6 = netip.MustParseAddr("10.138.0.1"), netip.MustParseAddr("fd09:24ef:4179::1")
	uplink4, uplink6   = netip.MustParseAddr("192.0.2.254"), netip.MustParseAddr("2001:db8::fe")
)

// topology is a netvm between two AppVMs and a network with resolvers, each in a network namespace. The test's
// goroutine is in that of the netvm.
type topology struct {
	t                             testing.TB
	client, other, router, server netns.NsHandle
	held                          chan struct{} // a resolver got a query whose answer it keeps
	release                       chan struct{} // each value sends one kept answer
	sent                          uint16        // packets by send
}

func newTopology(t testing.TB) *topology {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("these tests make network namespaces: run them as root")
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the test's goroutine, and its namespace with it
	n := &topology{t: t, held: make(chan struct{}, 16), release: make(chan struct{})}
	for _, h := range []*netns.NsHandle{&n.client, &n.other, &n.server, &n.router} {
		ns, err := netns.New()
		must(t, err)
		*h = ns
		t.Cleanup(func() { ns.Close() })
		must(t, linkUp("lo"))
		// A link-local address that waits for duplicate detection keeps the kernel from asking for neighbours.
		must(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644))
	}
	n.wire("up0", n.server)
	n.configureUplink()
	n.wire("vif1.0", n.client)
	n.configureVif("vif1.0", n.client, client4, client6)
	n.wire("vif2.0", n.other)
	n.configureVif("vif2.0", n.other, other4, other6)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for ns, devices := range map[netns.NsHandle][]string{
		n.client: {"eth0"}, n.other: {"eth0"}, n.server: {"eth0"}, n.router: {"up0", "vif1.0", "vif2.0"},
	} {
		n.in(ns, func() {
			n.awaitCarrier(devices...)
			must(n.t, lab.AwaitOwn(ctx))
		})
	}
	for _, r := range []netip.Addr{resolverA, resolverB, resolverC, resolverA6, resolverB6} {
		n.serve(r)
	}
	return n
}

// awaitCarrier waits until the devices carry: one that is up drops what is sent until the kernel has noticed its peer.
func (n *topology) awaitCarrier(devices ...string) {
	n.t.Helper()
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	must(n.t, netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{ListExisting: true}))
	defer func() {
		close(done)
		go func() {
			for range updates { // until the subscription's goroutine notices and closes it
				continue
			}
		}()
	}()
	late := time.After(patience)
	for waiting := slices.Clone(devices); len(waiting) > 0; {
		select {
		case u := <-updates:
			if u.Attrs().OperState == netlink.OperUp {
				waiting = slices.DeleteFunc(waiting, func(d string) bool { return d == u.Attrs().Name })
			}
		case <-late:
			n.t.Fatalf("%q do not carry", waiting)
		}
	}
}

// wire puts a cable between a device of the router and the eth0 of another namespace.
func (n *topology) wire(name string, peer netns.NsHandle) {
	n.t.Helper()
	must(n.t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(peer),
	}))
}

func (n *topology) configureUplink() {
	n.t.Helper()
	n.in(n.server, func() {
		must(n.t, linkUp("eth0"))
		addAddress(n.t, "eth0", "192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24", "2001:db8::1/64", "2001:db8::2/64")
	})
	for path, value := range map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0",
	} {
		must(n.t, os.WriteFile("/proc/sys/net/"+path, []byte(value), 0o644))
	}
	// The limit over all hosts, 50 in a burst, stays in life; the tests ask faster than twenty AppVMs. Kernels that have
	// it not in each namespace have it only in the first.
	if err := os.WriteFile("/proc/sys/net/ipv4/icmp_msgs_burst", []byte("1000"), 0o644); !errors.Is(err, fs.ErrNotExist) {
		must(n.t, err)
	}
	must(n.t, linkUp("up0"))
	addAddress(n.t, "up0", uplink4.String()+"/24", uplink6.String()+"/64")
	addRoute(n.t, "up0", "0.0.0.0/0", "192.0.2.1")
	addRoute(n.t, "up0", "::/0", "2001:db8::1")
}

// configureVif configures both ends of a vif, as its hotplug program and the AppVM do: routed, link group 2, and the
// AppVM a permanent neighbour.
func (n *topology) configureVif(name string, appVM netns.NsHandle, addrs ...netip.Addr) {
	n.t.Helper()
	var mac net.HardwareAddr
	n.in(appVM, func() {
		must(n.t, linkUp("eth0"))
		for _, a := range addrs {
			addAddress(n.t, "eth0", single(a))
		}
		for _, gateway := range []netip.Addr{gateway4, gateway6} {
			addRoute(n.t, "eth0", single(gateway), "")
		}
		addRoute(n.t, "eth0", "0.0.0.0/0", gateway4.String())
		addRoute(n.t, "eth0", "::/0", gateway6.String())
		eth, err := netlink.LinkByName("eth0")
		must(n.t, err)
		mac = eth.Attrs().HardwareAddr
	})
	vif, err := netlink.LinkByName(name)
	must(n.t, err)
	must(n.t, netlink.LinkSetGroup(vif, vifGroup))
	must(n.t, linkUp(name))
	addAddress(n.t, name, single(gateway4), single(gateway6))
	for _, a := range addrs {
		addRoute(n.t, name, single(a), "")
		must(n.t, netlink.NeighSet(&netlink.Neigh{
			LinkIndex: vif.Attrs().Index, IP: a.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT,
		}))
	}
}

// admit lets the AppVMs send from their addresses.
func (n *topology) admit(ctx context.Context, b Backend) {
	n.t.Helper()
	_, err := b.Ensure(ctx, nil)
	must(n.t, err)
	must(n.t, b.Admit(ctx, "vif1.0", []netip.Addr{client4, client6}))
	must(n.t, b.Admit(ctx, "vif2.0", []netip.Addr{other4, other6}))
}

// somebody is a table of somebody else that our own must live beside.
const somebody = `
table ip somebody { chain out { type nat hook postrouting priority srcnat - 1; oifname "up0" snat to 192.0.2.254; }; }
`

// in runs f in another namespace.
func (n *topology) in(ns netns.NsHandle, f func()) {
	n.t.Helper()
	must(n.t, netns.Set(ns))
	defer func() { must(n.t, netns.Set(n.router)) }()
	f()
}

// run runs a program in the router's namespace.
func (n *topology) run(name string, args ...string) string {
	n.t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *topology) nft(text string) {
	n.t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		n.t.Fatalf("nft: %v: %s\n%s", err, out, text)
	}
}

// serve lets a resolver answer with its own address and the query. The answer to "hold" waits for release.
func (n *topology) serve(r netip.Addr) {
	n.t.Helper()
	n.in(n.server, func() {
		udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(r, dnsPort)))
		must(n.t, err)
		tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(r, dnsPort)))
		must(n.t, err)
		var done sync.WaitGroup
		done.Add(2)
		go func() { defer done.Done(); n.answerUDP(r, udp) }()
		go func() { defer done.Done(); answerTCP(r, tcp) }()
		n.t.Cleanup(func() { udp.Close(); tcp.Close(); done.Wait() })
	})
}

func (n *topology) answerUDP(r netip.Addr, conn *net.UDPConn) {
	buffer := make([]byte, 512)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		answer := []byte(r.String() + " " + string(buffer[:size]))
		if string(buffer[:size]) != "hold\n" {
			_, _ = conn.WriteToUDPAddrPort(answer, from)
			continue
		}
		n.held <- struct{}{}
		go func() {
			<-n.release
			_, _ = conn.WriteToUDPAddrPort(answer, from)
		}()
	}
}

func answerTCP(r netip.Addr, listener *net.TCPListener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			lines := bufio.NewScanner(conn)
			for lines.Scan() {
				if _, err := fmt.Fprintf(conn, "%s %s\n", r, lines.Text()); err != nil {
					return
				}
			}
		}()
	}
}

// dial opens a client's socket; local port 0 is any.
func (n *topology) dial(network string, to netip.AddrPort, port int) (net.Conn, error) {
	var conn net.Conn
	var err error
	n.in(n.client, func() {
		d := net.Dialer{Timeout: silence}
		if network == "udp" && port != 0 {
			d.LocalAddr = &net.UDPAddr{Port: port}
		}
		conn, err = d.Dial(network, to.String())
	})
	return conn, err
}

// query sends one query over a socket and gives the address of who answered.
func query(conn net.Conn, text string) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(silence)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, text+"\n"); err != nil {
		return "", err
	}
	buffer := make([]byte, 512)
	for {
		size, err := conn.Read(buffer)
		if err != nil {
			return "", err
		}
		if who, what, _ := strings.Cut(string(buffer[:size]), " "); strings.TrimSpace(what) == text {
			return who, nil
		}
	}
}

// ask is a query over a socket of its own.
func (n *topology) ask(network string, virtual netip.Addr, text string) (string, error) {
	conn, err := n.dial(network, netip.AddrPortFrom(virtual, dnsPort), 0)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return query(conn, text)
}

// mustReach asks over UDP and TCP and wants this resolver's answer.
func (n *topology) mustReach(virtual, resolver netip.Addr) {
	n.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		who, err := n.ask(network, virtual, "who")
		if err != nil || who != resolver.String() {
			n.t.Errorf("%s query to %s: answer of %q, %v; want that of %s", network, virtual, who, err, resolver)
		}
	}
}

// mustRefuse asks twenty times in a row, over UDP and TCP, and wants each refused at once.
func (n *topology) mustRefuse(virtual netip.Addr) {
	n.t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		for i := range 20 {
			begun := time.Now()
			who, err := n.ask(network, virtual, "who")
			if err == nil || isTimeout(err) {
				n.t.Errorf("%s query %d to %s after %v: answer of %q, %v; want it refused", network, i, virtual, time.Since(begun), who, err)
				break
			}
		}
	}
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}

func addAddress(t testing.TB, device string, addresses ...string) {
	t.Helper()
	link, err := netlink.LinkByName(device)
	must(t, err)
	for _, text := range addresses {
		a, err := netlink.ParseAddr(text)
		must(t, err)
		if a.IP.To4() == nil {
			a.Flags = noDAD
		}
		must(t, netlink.AddrAdd(link, a))
	}
}

// noDAD is IFA_F_NODAD: no address waits for duplicate detection in these tests.
const noDAD = 0x02

func addRoute(t testing.TB, device, destination, gateway string) {
	t.Helper()
	link, err := netlink.LinkByName(device)
	must(t, err)
	dst, err := netlink.ParseIPNet(destination)
	must(t, err)
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}
	if gateway != "" {
		r.Gw, r.Scope = net.ParseIP(gateway), netlink.SCOPE_UNIVERSE
	}
	must(t, netlink.RouteAdd(r))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// to is a target on the uplink.
func to(virtual, resolver netip.Addr) netvm.Target {
	return netvm.Target{Virtual: virtual, Resolver: netvm.Resolver{Addr: resolver, Interface: "up0"}}
}

// unserved is a target without a resolver.
func unserved(virtual netip.Addr) netvm.Target { return netvm.Target{Virtual: virtual} }

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}
