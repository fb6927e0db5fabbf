// Package config reads netvmd.toml, the configuration of every program of the project. Every key has a default; a
// key that does not exist, or a value that makes no sense, is one error that names the file, the line and the key.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// DefaultPath is where the configuration is looked for when neither --config nor NETVMD_CONFIG names another.
const DefaultPath = "/etc/netvmd/netvmd.toml"

// Config is the whole configuration.
type Config struct {
	// RuntimeDir holds what must survive a restart of the daemon and nothing longer.
	RuntimeDir string   `toml:"runtime_dir"`
	DNS        DNS      `toml:"dns"`
	Firewall   Firewall `toml:"firewall"`
	Hooks      Hooks    `toml:"hooks"`
}

// DNS says which addresses AppVMs ask and where their queries go.
type DNS struct {
	Virtual    []netip.Addr `toml:"virtual"` // what AppVMs have as nameservers
	Servers    []netip.Addr `toml:"servers"` // empty = from the source
	Source     Source       `toml:"source"`
	ResolvConf string       `toml:"resolv_conf"`
}

// Firewall says how the kernel is told.
type Firewall struct {
	Backend Backend `toml:"backend"`
	OnDrift OnDrift `toml:"on_drift"`
}

// Hooks names the systemd units that are told after the DNS targets changed.
type Hooks struct {
	TryRestartUnits []string `toml:"try_restart_units"`
	TryReloadUnits  []string `toml:"try_reload_units"`
}

// Source is a value of dns.source: auto, networkmanager, resolved or resolv.conf.
type Source string

// Backend is a value of firewall.backend: auto, nftables or iptables.
type Backend string

// OnDrift is a value of firewall.on_drift: restore or warn.
type OnDrift string

// The values of firewall.on_drift.
const (
	Restore OnDrift = "restore" // undo what others change in our rules
	Warn    OnDrift = "warn"    // only say it
)

// Default is the configuration where the file says nothing.
func Default() Config {
	return Config{
		RuntimeDir: "/run/netvmd",
		DNS: DNS{
			Virtual:    []netip.Addr{netip.AddrFrom4([4]byte{10, 139, 1, 1}), netip.AddrFrom4([4]byte{10, 139, 1, 2})},
			Source:     "auto",
			ResolvConf: "/etc/resolv.conf",
		},
		Firewall: Firewall{Backend: "auto", OnDrift: Restore},
		Hooks: Hooks{
			TryRestartUnits: []string{"qubes-updates-proxy.service"},
			TryReloadUnits:  []string{"qubes-firewall.service"},
		},
	}
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
	defaults := Default()
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
	if len(c.DNS.Virtual) == 0 { // [] asks for the default
		c.DNS.Virtual = defaults.DNS.Virtual
	}
	if key, err := c.check(); err != nil {
		return Config{}, fmt.Errorf("%s:%d: %s: %w", path, lineOf(text, key), key, err)
	}
	return c, nil
}

// check finds what each value alone cannot show; the key is the one at fault.
func (c Config) check() (toml.Key, error) {
	for i, a := range c.DNS.Virtual {
		switch {
		case !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6():
			return toml.Key{"dns", "virtual"}, fmt.Errorf("%s cannot be a virtual DNS address: a plain unicast address is needed", a)
		case slices.Contains(c.DNS.Virtual[:i], a):
			return toml.Key{"dns", "virtual"}, fmt.Errorf("%s stands there twice", a)
		}
	}
	for _, p := range []struct{ section, key, value string }{
		{"", "runtime_dir", c.RuntimeDir},
		{"dns", "resolv_conf", c.DNS.ResolvConf},
	} {
		if !strings.HasPrefix(p.value, "/") {
			key := toml.Key{p.section, p.key}
			if p.section == "" {
				key = toml.Key{p.key}
			}
			return key, fmt.Errorf("%q is not an absolute path", p.value)
		}
	}
	for key, units := range map[string][]string{"try_restart_units": c.Hooks.TryRestartUnits, "try_reload_units": c.Hooks.TryReloadUnits} {
		for _, u := range units {
			if !strings.Contains(u, ".") || strings.ContainsAny(u, "/ \t\n") {
				return toml.Key{"hooks", key}, fmt.Errorf("%q is not a unit's name, such as example.service", u)
			}
		}
	}
	return nil, nil
}

// UnmarshalText takes one of the sources.
func (s *Source) UnmarshalText(b []byte) error {
	return oneOf(s, b, "auto", "networkmanager", "resolved", "resolv.conf")
}

// UnmarshalText takes one of the backends.
func (v *Backend) UnmarshalText(b []byte) error { return oneOf(v, b, "auto", "nftables", "iptables") }

// UnmarshalText takes Restore or Warn.
func (v *OnDrift) UnmarshalText(b []byte) error { return oneOf(v, b, Restore, Warn) }

func oneOf[T ~string](v *T, b []byte, allowed ...T) error {
	if *v = T(b); slices.Contains(allowed, *v) {
		return nil
	}
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	return fmt.Errorf("%q is not one of %s", b, strings.Join(words, ", "))
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
