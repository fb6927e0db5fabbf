// Package config reads netvmd.toml, the configuration of every program of the project. Every key has a default; a
// key that does not exist, or a value that makes no sense, is one error that names the file, the line and the key.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
)

// DefaultPath is where the configuration is looked for when neither --config nor NETVMD_CONFIG names another.
const DefaultPath = "/etc/netvmd/netvmd.toml"

// Config is the whole configuration.
type Config struct {
	// RuntimeDir holds what must survive a restart of the daemon and nothing longer.
	RuntimeDir string `toml:"runtime_dir"`
	// StateDir holds what must survive a reboot: the persistent DNS override, and in dom0 the journal of its visit.
	StateDir string   `toml:"state_dir"`
	DNS      DNS      `toml:"dns"`
	Firewall Firewall `toml:"firewall"`
	Vif      Vif      `toml:"vif"`
	Store    Store    `toml:"store"`
	Hooks    Hooks    `toml:"hooks"`
}

// DNS says which addresses AppVMs ask and where their queries go.
type DNS struct {
	Virtual    []netip.Addr `toml:"virtual"` // what AppVMs have as nameservers; empty = see VirtualOr
	Servers    []netip.Addr `toml:"servers"` // empty = from the source
	Source     Source       `toml:"source"`
	ResolvConf string       `toml:"resolv_conf"`
}

// Firewall says how the kernel is told, and what.
type Firewall struct {
	Backend   Backend   `toml:"backend"`
	Base      Base      `toml:"base"`
	OnDrift   OnDrift   `toml:"on_drift"`
	Flowtable Flowtable `toml:"flowtable"`
}

// Vif says how an AppVM's network card is set up.
type Vif struct {
	Gateway  netip.Addr `toml:"gateway"`  // IPv4; the zero Addr = from the store
	Gateway6 netip.Addr `toml:"gateway6"` // IPv6; the zero Addr = from the store
	Harden   Harden     `toml:"harden"`
}

// Store says where the netvm's own settings are read.
type Store struct {
	Kind          StoreKind `toml:"kind"`
	QubesDBSocket string    `toml:"qubesdb_socket"`
	XenStorePath  string    `toml:"xenstore_path"` // "auto", or the path of a socket or a device
}

// Hooks names what is told when something changed: systemd units after the DNS targets, programs after a vif or an uplink.
type Hooks struct {
	TryRestartUnits []string `toml:"try_restart_units"`
	TryReloadUnits  []string `toml:"try_reload_units"`
	NetworkHooksDir string   `toml:"network_hooks_dir"` // need not exist
	IPChangeHook    string   `toml:"ip_change_hook"`    // need not exist
}

// Default is the configuration where the file says nothing.
func Default() Config {
	return Config{
		RuntimeDir: "/run/netvmd",
		StateDir:   "/var/lib/netvmd",
		DNS:        DNS{Source: "auto", ResolvConf: "/etc/resolv.conf"},
		Firewall:   Firewall{Backend: "auto", Base: BaseAuto, OnDrift: Restore, Flowtable: FlowtableAuto},
		Vif:        Vif{Harden: HardenAuto},
		Store:      Store{Kind: StoreAuto, QubesDBSocket: "/var/run/qubes/qubesdb.sock", XenStorePath: "auto"},
		Hooks: Hooks{
			TryRestartUnits: []string{"qubes-updates-proxy.service"},
			TryReloadUnits:  []string{"qubes-firewall.service"},
			NetworkHooksDir: "/rw/config/network-hooks.d",
			IPChangeHook:    "/rw/config/qubes-ip-change-hook",
		},
	}
}

// VirtualOr returns the virtual DNS addresses in force: the file's, else the store's, else those that Qubes gives to
// every AppVM.
func (d DNS) VirtualOr(store []netip.Addr) []netip.Addr {
	switch {
	case len(d.Virtual) > 0:
		return d.Virtual
	case len(store) > 0:
		return store
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{10, 139, 1, 1}), netip.AddrFrom4([4]byte{10, 139, 1, 2})}
}

// Path is the file that counts: the flag's value, else $NETVMD_CONFIG, else DefaultPath. named tells that
// somebody asked for it, so that it must exist.
func Path(flag string) (path string, named bool) {
	if flag != "" {
		return flag, true
	}
	if env := os.Getenv("NETVMD_CONFIG"); env != "" {
		return env, true
	}
	return DefaultPath, false
}

// Load reads the file that Path names. The default file may be absent: then every key has its default.
func Load(flag string) (Config, error) {
	path, named := Path(flag)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return Default(), nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, string(text))
}

// Parse reads a configuration from text; path is for its errors alone.
func Parse(path, text string) (Config, error) {
	c := Default()
	meta, err := toml.Decode(text, &c)
	var parse toml.ParseError
	if errors.As(err, &parse) {
		key := ""
		if parse.LastKey != "" {
			key = parse.LastKey + ": "
		}
		return Config{}, fmt.Errorf("%s:%d: %s%s", path, parse.Position.Line, key, firstLine(parse.Message))
	}
	if err != nil {
		return Config{}, fmt.Errorf("%s: %s", path, firstLine(err.Error()))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Config{}, fmt.Errorf("%s:%d: unknown key %s: remove it or mend its spelling",
			path, lineOf(text, unknown[0]), unknown[0])
	}
	if key, err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s:%d: %s: %w", path, lineOf(text, key), key, err)
	}
	return c, nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimPrefix(line, "toml: ")
}

// lineOf finds the line, from 1, that sets the key. The TOML library does not keep it for a key it could not
// place. A key written in an unusual way (an inline table, quoted) falls back to its table's line, or 1.
func lineOf(text string, key toml.Key) int {
	table, name := strings.Join(key[:len(key)-1], "."), key[len(key)-1]
	here, best := "", 1
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if head, ok := strings.CutPrefix(line, "["); ok {
			here = strings.TrimSpace(strings.Trim(strings.SplitN(head, "]", 2)[0], "[]"))
			if here == table || here == key.String() {
				best = i + 1
			}
			if here == key.String() {
				return best
			}
			continue
		}
		left, _, ok := strings.Cut(line, "=")
		left = strings.TrimSpace(left)
		if ok && (here == table && left == name || here == "" && left == key.String()) {
			return i + 1
		}
	}
	return best
}
