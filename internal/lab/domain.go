package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"netvmd/internal/lab/fakebus"
	"netvmd/packaging"
)

// domainsDir has a folder for each domain.
const domainsDir = Root + "/domains"

// Domain is a host that the toolstack knows: what it says about the domain stands in its stores, and daemons can be
// started in it, on a bus of its own, of which each can be killed and started again. The address of that bus is in the
// environment of every program that is run in the domain.
type Domain struct {
	*Host
	Dir string // its configurations and sockets

	// XenStore and QubesDB are what the toolstack says; nil while they do not run.
	XenStore *XenStore
	QubesDB  *QubesDB

	// FakeNM plays NetworkManager; nil while it does not.
	FakeNM *fakebus.NetworkManager

	options Options
	bus     string // where its system bus listens

	busDaemon, nm, resolved, polkit *Process
}

// newDomain makes the host, without anything that runs.
func newDomain(name string, o Options) (*Domain, error) {
	h, err := newHost(name)
	if err != nil {
		return nil, err
	}
	d := domainAt(h, o)
	if err := h.Do(hideDaemonState); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, d.writeFiles(map[string]string{
		d.busPolicy():                      packaging.BusPolicy,
		d.busConfig():                      fmt.Sprintf(systemBus, d.bus, d.busPolicy()),
		d.NetworkManagerConf():             d.nmConfig(),
		d.NetvmdConfig():                   d.servedConfig(),
		d.RuntimeDir() + "/.keep":          "",
		d.nmDir() + "/conf.d/.keep":        "",
		d.nmDir() + "/system-conf.d/.keep": "",
	})
}

// domainAt is the domain that a host is.
func domainAt(h *Host, o Options) *Domain {
	d := &Domain{Host: h, Dir: filepath.Join(domainsDir, h.Name), options: o}
	d.bus = "unix:path=" + d.busSocket()
	return d
}

// setDomainEnvironment has this program find the bus and the configuration of a domain of the lab, if the host is one.
func setDomainEnvironment(host string) error {
	d := domainAt(&Host{Name: host}, Options{})
	if _, err := os.Stat(d.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", d.bus), os.Setenv("NETVMD_CONFIG", d.NetvmdConfig()))
}

func (d *Domain) nmDir() string     { return d.Dir + "/nm" }
func (d *Domain) busConfig() string { return d.Dir + "/bus.conf" }
func (d *Domain) busPolicy() string { return d.Dir + "/bus.d/org.qubes_os.NetVM1.conf" }
func (d *Domain) busSocket() string { return d.Dir + "/bus" }

// NetworkManagerConf returns the path of NetworkManager's configuration.
func (d *Domain) NetworkManagerConf() string { return d.nmDir() + "/NetworkManager.conf" }

// XenStoreSocket is where the domain's XenStore listens.
func (d *Domain) XenStoreSocket() string { return d.Dir + "/xenstored" }

// QubesDBSocket is where the domain's QubesDB listens.
func (d *Domain) QubesDBSocket() string { return d.Dir + "/qubesdb" }

// NetvmdConfig returns the path of netvmd.toml; our programs given to Run take it as --config.
func (d *Domain) NetvmdConfig() string { return d.Dir + "/netvmd/netvmd.toml" }

// RuntimeDir is that of our programs, where the records of the vifs are.
func (d *Domain) RuntimeDir() string { return d.Dir + "/netvmd/run" }

// StateDir is that of our programs, where the persistent override is.
func (d *Domain) StateDir() string { return d.Dir + "/netvmd/state" }

// writeFiles writes files that only root may read: NetworkManager ignores connections that others could read.
func (d *Domain) writeFiles(files map[string]string) error {
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	return nil
}

// hideDaemonState covers the places where NetworkManager and systemd's daemons remember devices, leases and servers: an
// instance that finds those of another one takes a device for configured already.
func hideDaemonState() error {
	for _, dir := range []string{"/run/NetworkManager", "/run/systemd", "/var/lib/NetworkManager"} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !strings.HasPrefix(dir, "/run/") {
			return fmt.Errorf("%s is missing: is NetworkManager installed whole?", dir)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
		}
	}
	return nil
}

// Environ is the environment of programs in the domain: its bus is their system bus.
func (d *Domain) Environ() []string {
	env := append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+d.bus)
	if d.options.Backend == IPTablesLegacy {
		env = append(env, "PATH="+legacyBin+":"+os.Getenv("PATH"))
	}
	return env
}

// Run runs a program in the domain to its end and returns what it printed.
func (d *Domain) Run(ctx context.Context, name string, args ...string) (string, error) {
	return d.RunCommand(d.Command(ctx, name, args...))
}

// RunInput is Run with something on standard input.
func (d *Domain) RunInput(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := d.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	return d.RunCommand(cmd)
}

// Command prepares a program to be run in the domain, with the domain's bus as its system bus.
func (d *Domain) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := d.Host.Command(ctx, name, args...)
	cmd.Env = d.Environ()
	return cmd
}

// startDaemon starts a daemon in the domain; the netvm's have their logs under their own names, others' under the
// domain's too.
func (d *Domain) startDaemon(ctx context.Context, name, ready string, cmd *exec.Cmd) (*Process, error) {
	if d.Name != netvmName {
		name = d.Name + "-" + name
	}
	return d.Host.startDaemon(ctx, name, ready, cmd)
}

// StartXenStore starts a XenStore with nothing in it about the domain.
func (d *Domain) StartXenStore() (err error) {
	if d.XenStore, err = StartXenStore(d.XenStoreSocket()); err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

// StopXenStore ends it, if it runs.
func (d *Domain) StopXenStore() error {
	if d.XenStore == nil {
		return nil
	}
	err := d.XenStore.Close()
	d.XenStore = nil
	return err
}

// StartQubesDB starts an empty QubesDB.
func (d *Domain) StartQubesDB() (err error) {
	if d.QubesDB, err = StartQubesDB(d.QubesDBSocket()); err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

// StopQubesDB ends it, if it runs.
func (d *Domain) StopQubesDB() error {
	if d.QubesDB == nil {
		return nil
	}
	err := d.QubesDB.Close()
	d.QubesDB = nil
	return err
}

// NMCLI runs nmcli in the domain, as a user would.
func (d *Domain) NMCLI(ctx context.Context, args ...string) error {
	_, err := d.Run(ctx, "nmcli", args...)
	return err
}

// StartNetworkManager starts NetworkManager and waits until it is on the bus.
func (d *Domain) StartNetworkManager(ctx context.Context) error {
	owned, err := d.awaitName(ctx, nmName)
	if err != nil {
		return err
	}
	dir := d.nmDir()
	cmd := daemonCommand(ctx, "NetworkManager", "--debug", "--config="+d.NetworkManagerConf(),
		"--config-dir="+dir+"/conf.d", "--system-config-dir="+dir+"/system-conf.d",
		"--intern-config="+dir+"/intern.conf", "--state-file="+dir+"/state", "--pid-file="+dir+"/pid")
	cmd.Env = d.Environ()
	if d.nm, err = d.startDaemon(ctx, "NetworkManager", "", cmd); err != nil {
		return err
	}
	return d.nm.await(ctx, owned, "take its name on the bus")
}

// NetworkManager returns its process.
func (d *Domain) NetworkManager() *Process { return d.nm }

// KillNetworkManager kills NetworkManager as a crash would: links keep their addresses.
func (d *Domain) KillNetworkManager(ctx context.Context) error {
	return d.nm.Stop(ctx, syscall.SIGKILL)
}

// end stops all that runs. SIGKILL: a NetworkManager that is asked to end first takes its connections down, one by one.
func (d *Domain) end(ctx context.Context) error {
	err := errors.Join(d.resolved.Stop(ctx, syscall.SIGTERM), d.StopXenStore(), d.StopQubesDB())
	if d.FakeNM != nil {
		_ = d.FakeNM.Close() // it may have left the bus before
	}
	return errors.Join(err, d.nm.Stop(ctx, syscall.SIGKILL), d.StopPolkit(ctx), d.busDaemon.Stop(ctx, syscall.SIGKILL))
}
