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

	"netvmd/internal/lab/container"
	"netvmd/internal/lab/fakebus"
	"netvmd/internal/lab/notify"
	"netvmd/packaging"
)

const (
	nmDir      = Root + "/nm"
	netvmdDir  = Root + "/netvmd"
	configPath = netvmdDir + "/netvmd.toml"
	legacyBin  = Root + "/bin-legacy"
)

// NetVM is the netvm: the host with the uplinks and the vifs, and the daemons in it, each of which can be
// killed and started again.
type NetVM struct {
	*Host
	options Options

	// XenStore and QubesDB are what the toolstack says; the latter is nil while it does not run.
	XenStore *XenStore
	QubesDB  *QubesDB

	// FakeNM plays NetworkManager; nil while it does not.
	FakeNM *fakebus.NetworkManager

	// Machine is the container that is the netvm; nil while none was booted.
	Machine *container.Machine

	bus, nm, netvmd, resolved, polkit *Process

	notices *notify.Listener // what netvmd says; nil before its first start
}

// newNetVM makes the host, without its daemons.
func newNetVM(o Options) (*NetVM, error) {
	h, err := newHost("netvm")
	if err != nil {
		return nil, err
	}
	v := &NetVM{Host: h, options: o}
	if err := h.Do(hideNetworkManagerState); err != nil {
		return nil, err
	}
	if err := v.writeFiles(); err != nil {
		return nil, fmt.Errorf("netvm: %w", err)
	}
	if v.XenStore, err = StartXenStore(xenStoreSocket); err != nil {
		return nil, fmt.Errorf("netvm: %w", err)
	}
	if o.QubesDB == nil {
		return v, nil
	}
	if err := v.StartQubesDB(); err != nil {
		return nil, errors.Join(err, v.XenStore.Close())
	}
	for key, value := range o.QubesDB {
		v.QubesDB.Set(key, value)
	}
	return v, nil
}

// hideNetworkManagerState covers the places where NetworkManager remembers devices and leases: an instance
// that finds those of another one takes a device for configured already.
func hideNetworkManagerState() error {
	for _, dir := range []string{"/run/NetworkManager", "/var/lib/NetworkManager"} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && !strings.HasPrefix(dir, "/run/") {
			return fmt.Errorf("netvm: %s is missing: is NetworkManager installed whole?", dir)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("netvm: %w", err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("netvm: mount a tmpfs on %s: %w", dir, err)
		}
	}
	return nil
}

// writeFiles writes the configurations of the daemons.
func (v *NetVM) writeFiles() error {
	files := map[string]string{
		Root + "/bus.conf":                  busConfig,
		busPolicy:                           packaging.BusPolicy,
		nmDir + "/NetworkManager.conf":      v.nmConfig(),
		nmDir + "/conf.d/.keep":             "",
		nmDir + "/system-conf.d/.keep":      "",
		nmDir + "/home.nmconnection":        dhcpConnection(homeSite),
		nmDir + "/office.nmconnection":      dhcpConnection(officeSite),
		nmDir + "/vpn.nmconnection":         vpnConnection(vpnSite),
		nmDir + "/home-static.nmconnection": staticConnection(homeSite),
		configPath:                          v.netvmdConfig(),
		netvmdDir + "/run/.keep":            "",
	}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// NetworkManager ignores connections that others could read.
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	if v.options.Backend != IPTablesLegacy {
		return nil
	}
	return linkLegacy()
}

// linkLegacy makes a folder where the plain names of iptables mean the legacy ones.
func linkLegacy() error {
	if err := os.MkdirAll(legacyBin, 0o755); err != nil {
		return err
	}
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, tool := range []string{"", "-save", "-restore"} {
			path, err := exec.LookPath(family + "-legacy" + tool)
			if err != nil {
				return err
			}
			if err := os.Symlink(path, filepath.Join(legacyBin, family+tool)); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// Environ is the environment of programs in the netvm: the lab's bus is their system bus.
func (v *NetVM) Environ() []string {
	env := os.Environ() // with the bus address, which New has set
	if v.options.Backend == IPTablesLegacy {
		env = append(env, "PATH="+legacyBin+":"+os.Getenv("PATH"))
	}
	return env
}

// Run runs a program in the netvm to its end and returns what it printed.
func (v *NetVM) Run(ctx context.Context, name string, args ...string) (string, error) {
	return v.RunCommand(v.Command(ctx, name, args...))
}

// RunInput is Run with something on standard input.
func (v *NetVM) RunInput(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := v.Command(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	return v.RunCommand(cmd)
}

// Command prepares a program to be run in the netvm, with the lab's bus as its system bus.
func (v *NetVM) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := v.Host.Command(ctx, name, args...)
	cmd.Env = v.Environ()
	return cmd
}

// NMCLI runs nmcli in the netvm, as a user would.
func (v *NetVM) NMCLI(ctx context.Context, args ...string) error {
	_, err := v.Run(ctx, "nmcli", args...)
	return err
}

// StartQubesDB starts an empty QubesDB.
func (v *NetVM) StartQubesDB() (err error) {
	if v.QubesDB, err = StartQubesDB(qubesDBSocket); err != nil {
		return fmt.Errorf("netvm: %w", err)
	}
	return nil
}

// StopQubesDB ends it, if it runs.
func (v *NetVM) StopQubesDB() error {
	if v.QubesDB == nil {
		return nil
	}
	err := v.QubesDB.Close()
	v.QubesDB = nil
	return err
}

// StartNetworkManager starts NetworkManager and waits until it is on the bus.
func (v *NetVM) StartNetworkManager(ctx context.Context) error {
	owned, err := v.awaitName(ctx, "org.freedesktop.NetworkManager")
	if err != nil {
		return err
	}
	cmd := daemonCommand(ctx, "NetworkManager", "--debug", "--config="+nmDir+"/NetworkManager.conf",
		"--config-dir="+nmDir+"/conf.d", "--system-config-dir="+nmDir+"/system-conf.d",
		"--intern-config="+nmDir+"/intern.conf", "--state-file="+nmDir+"/state", "--pid-file="+nmDir+"/pid")
	cmd.Env = v.Environ()
	if v.nm, err = v.startDaemon(ctx, "NetworkManager", "", cmd); err != nil {
		return err
	}
	return v.nm.await(ctx, owned, "take its name on the bus")
}

// NetworkManager returns its process.
func (v *NetVM) NetworkManager() *Process { return v.nm }

// KillNetworkManager kills NetworkManager as a crash would: links keep their addresses.
func (v *NetVM) KillNetworkManager(ctx context.Context) error {
	return v.nm.Stop(ctx, syscall.SIGKILL)
}

// Backend is what writes the kernel's rules in this lab.
func (v *NetVM) Backend() Backend { return v.options.Backend }
