package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/dbus"
	"netvmd/internal/config"
	"netvmd/internal/netvm"
	"netvmd/internal/qubes"
	"netvmd/internal/systembus"
	"netvmd/internal/vif"
)

// machine is what the checks look at. What is dear to read is read once, by the first check that asks.
type machine struct {
	root       string // before the path of every file; "/" but in tests
	uid        int
	version    string
	configPath string
	conf       config.Config // the defaults, where the file is wrong
	confErr    error
	log        *slog.Logger // of parts that want one; what they say is found by the checks as well

	bus     func() (*godbus.Conn, error)
	status  func() (netvm.Status, error)
	rules   func() (rules, error)
	vifs    func() ([]string, error) // the names of the devices
	sockets func() ([]socket, error)

	mu   sync.Mutex
	open []*godbus.Conn
}

func newMachine(ctx context.Context, o Options) *machine {
	path, _ := config.Path(o.Config)
	if absolute, err := filepath.Abs(path); err == nil { // else it stays as it was said
		path = absolute
	}
	m := &machine{
		root: "/", uid: os.Geteuid(), version: o.Version, configPath: path,
		log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	if m.conf, m.confErr = config.Load(o.Config); m.confErr != nil {
		m.conf = config.Default()
	}
	m.bus = sync.OnceValues(func() (*godbus.Conn, error) { return m.connect(ctx) })
	m.status = sync.OnceValues(func() (netvm.Status, error) { return readStatus(ctx) })
	m.rules = sync.OnceValues(func() (rules, error) { return m.readRules(ctx) })
	m.vifs = sync.OnceValues(vifNames)
	m.sockets = sync.OnceValues(m.readSockets)
	return m
}

func (m *machine) connect(ctx context.Context) (*godbus.Conn, error) {
	conn, err := systembus.Connect(ctx)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = append(m.open, conn)
	return conn, nil
}

// close ends the connections. A check that is late finds its own closed.
func (m *machine) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range m.open {
		_ = conn.Close() // it is read from only
	}
}

// readStatus asks netvmd.
func readStatus(ctx context.Context) (netvm.Status, error) {
	client, err := dbus.Connect(ctx)
	if err != nil {
		return netvm.Status{}, err
	}
	status, err := client.Status(ctx)
	return status, errors.Join(err, client.Close())
}

// domain is what Qubes makes of the machine.
func (m *machine) domain() qubes.Domain {
	return qubes.Domain{Root: m.root, Socket: m.conf.Store.QubesDBSocket}
}

func vifNames() ([]string, error) {
	traffic, err := vif.Traffic()
	names := make([]string, len(traffic))
	for i, t := range traffic {
		names[i] = t.Vif
	}
	return names, err
}

func (m *machine) path(path string) string { return filepath.Join(m.root, path) }

// read gives the text of a file without the space around it, "" where there is none.
func (m *machine) read(path string) (string, error) {
	text, err := os.ReadFile(m.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSpace(string(text)), err
}

// exists tells whether there is a file, a folder or a link to one.
func (m *machine) exists(path string) (bool, error) {
	_, err := os.Stat(m.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// executable tells whether root could run the file.
func (m *machine) executable(path string) (bool, error) {
	info, err := os.Stat(m.path(path))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0, err
}

// onXen tells whether this is a domain of Xen (Linux, Documentation/ABI/testing/sysfs-hypervisor-xen).
func (m *machine) onXen() (bool, error) {
	kind, err := m.read("/sys/hypervisor/type")
	return kind == "xen", err
}

// The bus itself.
const (
	busName = "org.freedesktop.DBus"
	busPath = godbus.ObjectPath("/org/freedesktop/DBus")
)

// owned tells whether a program has a name on the bus.
func (m *machine) owned(ctx context.Context, name string) (owned bool, err error) {
	err = m.call(ctx, busName, busPath, busName+".NameHasOwner", &owned, name)
	return owned, err
}

// call asks a program that runs; none is started for it.
func (m *machine) call(ctx context.Context, name string, path godbus.ObjectPath, method string, answer any, args ...any) error {
	conn, err := m.bus()
	if err != nil {
		return err
	}
	call := conn.Object(name, path).CallWithContext(ctx, method, godbus.FlagNoAutoStart, args...)
	if err := call.Store(answer); err != nil {
		return fmt.Errorf("%s of %s: %w", method, name, err)
	}
	return nil
}

// property reads one property of an object.
func (m *machine) property(ctx context.Context, name string, path godbus.ObjectPath, of, property string, into any) error {
	var value godbus.Variant
	if err := m.call(ctx, name, path, "org.freedesktop.DBus.Properties.Get", &value, of, property); err != nil {
		return err
	}
	if err := value.Store(into); err != nil {
		return fmt.Errorf("property %s.%s of %s: %w", of, property, name, err)
	}
	return nil
}
