package dbus

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

const patience = 10 * time.Second

// nobody is the user without rights that tests call as.
const nobody = 65534

// startBus starts a real dbus-daemon of the test's own and points this process to it. stop ends it; starting again
// uses the same address. limits are <limit> elements, dbus-daemon(1).
func startBus(t testing.TB, dir string, limits ...string) (stop func()) {
	t.Helper()
	for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) { // every user must reach the socket
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "bus")
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+socket)
	config := filepath.Join(dir, "bus.conf")
	err := os.WriteFile(config, []byte(fmt.Sprintf(`<busconfig><type>system</type><listen>unix:path=%s</listen>
%s<auth>EXTERNAL</auth><policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="false"/><allow receive_type="signal"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="method_call"/><allow own="*"/></policy></busconfig>`, socket, strings.Join(limits, ""))), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nosyslog", "--print-address=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need a real dbus-daemon (package dbus): %v", err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it prints its address once it listens
		t.Fatal(err)
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // it was killed
			_ = os.Remove(socket)
		})
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// run runs a service until the test ends.
func run(t testing.TB, daemon Daemon) (s *Service, stop func()) {
	t.Helper()
	s = NewService(daemon, quiet())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return s, stop
}

func client(t testing.TB) *Client {
	t.Helper()
	c, err := Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// as connects to the bus as a user, and past our own way to connect: the kernel notes who does, unix(7) SO_PEERCRED.
func as(t testing.TB, uid int) *Client {
	t.Helper()
	runtime.LockOSThread() // the identity is the thread's
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			t.Fatalf("these tests need root: setresuid: %v", errno)
		}
	}
	become(uid)
	socket, err := net.Dial("unix", strings.TrimPrefix(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), "unix:path="))
	become(0)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := godbus.NewConn(socket, godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err == nil {
		err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(uid))})
	}
	if err == nil {
		err = conn.Hello()
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{conn: conn}
	c.owner.Store("")
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// scene is a bus with a service on it, which has published the sample.
type scene struct {
	dir     string
	stopBus func()
	daemon  *fakeDaemon
	service *Service
	stop    func()
	ctx     context.Context
}

func newScene(t testing.TB, limits ...string) *scene {
	t.Helper()
	s := &scene{dir: t.TempDir(), daemon: newFakeDaemon()}
	s.stopBus = startBus(t, s.dir, limits...)
	t.Cleanup(func() { s.stopBus() })
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(context.Background(), 3*patience)
	t.Cleanup(cancel)
	s.service, s.stop = run(t, s.daemon)
	s.service.Publish(sample())
	s.await(t, "the sample", func(e Event) bool { return e.Status.Version == "1.2.3" })
	return s
}

// await waits for an event of a watch of its own.
func (s *scene) await(t testing.TB, what string, holds func(Event) bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	await(t, Watch(ctx), what, holds)
}

// await receives until a value holds.
func await[T any](t testing.TB, from <-chan T, what string, holds func(T) bool) T {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case v, ok := <-from:
			if !ok {
				t.Fatalf("%s: the channel was closed", what)
			}
			if holds(v) {
				return v
			}
		case <-deadline:
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// fakeDaemon keeps overrides as the real one does, and enforces its rules. Each thing that happens is told.
type fakeDaemon struct {
	happened chan string // "set :1.5 192.0.2.1", "left …", "clear …", "refresh", "routes", "tally"

	mu        sync.Mutex
	overrides []netvm.Override
	hold      chan struct{} // not nil: everything waits until it is closed
	reads     chan struct{} // not nil: what only reads waits until it is closed
	err       error         // the answer to everything
	late      error         // the answer to an override that was noted, and that the kernel does not take yet
}

func newFakeDaemon() *fakeDaemon { return &fakeDaemon{happened: make(chan string, 10000)} }

func (d *fakeDaemon) tell(format string, args ...any) { d.happened <- fmt.Sprintf(format, args...) }

// enter waits where the test says so.
func (d *fakeDaemon) enter(ctx context.Context) error {
	d.mu.Lock()
	hold, err := d.hold, d.err
	d.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func (d *fakeDaemon) Refresh(ctx context.Context) (bool, error) {
	d.tell("refresh")
	return true, d.enter(ctx)
}

func (d *fakeDaemon) SetOverride(ctx context.Context, o netvm.Override) error {
	d.tell("setting %s", o.Holder)
	if err := d.enter(ctx); err != nil {
		return err
	}
	for _, a := range o.Servers {
		if a.IsLoopback() {
			return netvm.InvalidError(a.String() + " is a loopback address")
		}
	}
	if !o.Persistent && o.Holder == "" {
		return fmt.Errorf("an override without a holder")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.overrides = slices.DeleteFunc(d.overrides, func(old netvm.Override) bool { return old.Holder == o.Holder })
	d.overrides = append([]netvm.Override{o}, d.overrides...)
	d.tell("set %s %v %t by %s", o.Holder, o.Servers, o.Persistent, o.By)
	return d.late
}

func (d *fakeDaemon) ClearOverride(ctx context.Context, holder string) error {
	if err := d.enter(ctx); err != nil {
		return err
	}
	d.drop(holder)
	d.tell("clear %s", holder)
	return nil
}

func (d *fakeDaemon) drop(holder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.overrides = slices.DeleteFunc(d.overrides, func(o netvm.Override) bool { return o.Holder == holder })
}

func (d *fakeDaemon) Holders() (holders []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range d.overrides {
		if !o.Persistent {
			holders = append(holders, o.Holder)
		}
	}
	return holders
}

func (d *fakeDaemon) Left(holder string) {
	d.drop(holder)
	d.tell("left %s", holder)
}

func (d *fakeDaemon) Routes(ctx context.Context) ([]netvm.Route, error) {
	d.tell("routes")
	d.mu.Lock()
	reads := d.reads
	d.mu.Unlock()
	if reads != nil {
		select {
		case <-reads:
		case <-ctx.Done():
		}
	}
	return sampleRoutes(), d.enter(ctx)
}

func (d *fakeDaemon) Tally(ctx context.Context) (netvm.Tally, error) {
	d.tell("tally")
	return sampleTally(), d.enter(ctx)
}

// until waits for something that the daemon was asked.
func (d *fakeDaemon) until(t testing.TB, beginning string) string {
	t.Helper()
	return await(t, d.happened, beginning, func(s string) bool { return strings.HasPrefix(s, beginning) })
}

func sampleRoutes() []netvm.Route {
	a := netip.MustParseAddr
	return []netvm.Route{
		{Destination: a("0.0.0.0"), Gateway: a("192.0.2.1"), Genmask: a("0.0.0.0"), Flags: "UG", Metric: 100, Interface: "eth0"},
		{Destination: a("10.137.0.11"), Gateway: a("0.0.0.0"), Genmask: a("255.255.255.255"), Flags: "UH", Metric: 32748, Interface: "vif4.0"},
	}
}

func sampleTally() netvm.Tally {
	return netvm.Tally{
		Traffic:  []netvm.Traffic{{Vif: "vif4.0", RxBytes: 1, RxPackets: 2, TxBytes: 3, TxPackets: 4}},
		Counters: []netvm.Counter{{Table: "ip netvmd", Name: "spoofed", Packets: 5, Bytes: 6}},
		Spoofed:  5, Unserved: 7, InputRejected: 8, ForwardRejected: 9,
	}
}

func sample() netvm.Status {
	a := netip.MustParseAddr
	return netvm.Status{
		Version: "1.2.3", State: netvm.Online, NMRunning: true, PortalURL: "http://example.org/check",
		Uplinks: []netvm.Uplink{{ID: "Café", Type: "802-11-wireless", Interface: "wlan0", SSID: "x\u202ey", Strength: 70,
			Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.7/24")}, Gateway: a("192.0.2.1"), Metered: true},
			{ID: "tun", Type: "vpn", Interface: "tun0", VPN: true}},
		DNSSource: "networkmanager", DNSReason: "because", DNSServers: []netvm.Resolver{{Addr: a("192.0.2.53")}},
		DNSTargets: []netvm.Target{{Virtual: a("10.139.1.1"), Resolver: netvm.Resolver{Addr: a("192.0.2.53")}}, {Virtual: a("fd00::1")}},
		ChangedAt:  time.UnixMicro(1_700_000_000_123_456), ApplyTime: 314 * time.Microsecond, Backend: "nftables",
		Vifs: []netvm.Vif{
			{Name: "vif4.0", DomID: 4, Addresses: []netip.Addr{a("10.137.0.11"), a("fd00::b")}, MAC: "00:16:3e:5e:6c:01",
				Visible: a("192.168.0.2"), VisibleGateway: a("192.168.0.1"), Gateway: a("10.137.0.6"), Gateway6: a("fd00::6"),
				Metric: 32748, State: netvm.VifUp, Since: time.UnixMicro(1_700_000_000_000_000)},
			{Name: "vif5.0", DomID: 5, Addresses: []netip.Addr{a("10.137.0.12")}, MAC: "00:16:3e:5e:6c:02",
				Gateway: a("10.137.0.6"), Metric: 32747, State: netvm.VifDegraded, Since: time.UnixMicro(1_700_000_001_000_000)},
		},
		DNSDropped: []netvm.Dropped{{Addr: a("127.0.0.1"), Reason: "it is the loopback"}},
		DNSOverrides: []netvm.Override{{Servers: []netip.Addr{a("192.0.2.53")}, Persistent: true, By: "netvmctl (pid 4711, user 0)",
			Since: time.UnixMicro(1_700_000_000_000_000)}},
		Problems: []string{"one"},
	}
}
