package uplink

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// sysctlRoot is where the kernel's settings are; each network namespace sees its own.
const sysctlRoot = "/proc/sys"

// neighbourLimits bound the kernel's table of neighbours (gc_thresh1 to 3 of ip-sysctl). On the link of a netvm each
// destination is a neighbour of its own, and the kernel's 1,024 are too few for a busy domain: what is beyond them cannot be
// reached. Only the machine's own network namespace has these settings. In entries, some 400 bytes each.
var neighbourLimits = []sysctl{
	{"net/ipv4/neigh/default/gc_thresh1", "2048", true},
	{"net/ipv4/neigh/default/gc_thresh2", "8192", true},
	{"net/ipv4/neigh/default/gc_thresh3", "16384", true},
}

// globals is the folder of settings that are not of one interface.
const globals = "net/ipv4/neigh/default/"

// sysctl is a setting, by its path below sysctlRoot.
type sysctl struct {
	path, value string
	atLeast     bool // a larger one is as good
}

// sysctlsOf are the settings that an interface needs.
func sysctlsOf(s Spec) []sysctl {
	var out []sysctl
	if slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		out = append(out, ipv6Of(s.Interface))
	}
	if s.Network {
		return out
	}
	return append(append(out, advertisementsOf(s.Interface)), neighbourLimits...)
}

// ipv6Of lets an interface have IPv6, without which it could have no address of it.
func ipv6Of(name string) sysctl {
	return sysctl{path: "net/ipv6/conf/" + name + "/disable_ipv6", value: "0"}
}

// advertisementsOf has an interface believe no router advertisements: the store says what the routes are.
func advertisementsOf(name string) sysctl {
	return sysctl{path: "net/ipv6/conf/" + name + "/accept_ra", value: "0"}
}

// isOurs tells whether a path may be one of an interface's settings.
func isOurs(name, path string) bool {
	return slices.ContainsFunc(append(slices.Clone(neighbourLimits), ipv6Of(name), advertisementsOf(name)),
		func(c sysctl) bool { return c.path == path })
}

// current returns what a setting is, "" if the kernel does not have it here.
func (c sysctl) current() (string, error) {
	text, err := os.ReadFile(filepath.Join(sysctlRoot, c.path))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", c.path, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// met tells whether a setting is as it must be, or cannot be set.
func (c sysctl) met(is string) bool {
	if is == "" || is == c.value {
		return true
	}
	have, err := strconv.Atoi(is)
	need, otherwise := strconv.Atoi(c.value)
	return c.atLeast && err == nil && otherwise == nil && have >= need
}

// rememberSysctls notes what the settings are that will be changed, unless that is known. What another interface has changed
// for all is noted here too: whichever is reverted last puts it back.
func (s *Setup) rememberSysctls(name string, r *record, list []sysctl) error {
	before := maps.Clone(r.Sysctls)
	if before == nil {
		before = map[string]string{}
	}
	for _, c := range list {
		is, err := c.current()
		if err != nil {
			return err
		}
		if _, known := before[c.path]; !known && !c.met(is) {
			before[c.path] = is
		}
	}
	_, changed, err := s.others(name) // after the settings were read: who changes one has noted it first
	if err != nil {
		return err
	}
	for _, c := range list {
		if was, is := changed[c.path]; is {
			before[c.path] = was
		}
	}
	r.Sysctls = before
	return nil
}

// settings sets those that are not as they must be.
func (k kernel) settings(list []sysctl) (changes []string, err error) {
	for _, c := range list {
		is, err := c.current()
		if err != nil {
			return changes, err
		}
		if c.met(is) {
			continue
		}
		if err := k.write(c.write); err != nil {
			return changes, err
		}
		changes = append(changes, fmt.Sprintf("set sysctl %s to %s", c.path, c.value))
	}
	return changes, nil
}

// restoreSysctls sets those that were changed to what they were. Settings of all interfaces stay as long as another one
// needs them.
func (s *Setup) restoreSysctls(name string, before map[string]string) (changes []string, err error) {
	shared, _, err := s.others(name)
	if err != nil {
		return nil, err
	}
	for path, value := range before {
		c := sysctl{path: path, value: value}
		is, err := c.current()
		if err != nil {
			return changes, err
		}
		if c.met(is) || shared && strings.HasPrefix(path, globals) {
			continue
		}
		if err := c.write(); err != nil {
			return changes, err
		}
		changes = append(changes, fmt.Sprintf("set sysctl %s to %s", path, c.value))
	}
	slices.Sort(changes)
	return changes, nil
}

func (c sysctl) write() error {
	if err := os.WriteFile(filepath.Join(sysctlRoot, c.path), []byte(c.value), 0o644); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", c.path, c.value, err)
	}
	return nil
}

// globalsOf are those of the settings that do not go with an interface.
func globalsOf(before map[string]string) map[string]string {
	out := map[string]string{}
	for path, value := range before {
		if strings.HasPrefix(path, globals) {
			out[path] = value
		}
	}
	return out
}

// others tells whether another interface than this one is set up, and what the settings of all interfaces were before.
func (s *Setup) others(name string) (there bool, before map[string]string, err error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return false, nil, fmt.Errorf("look for other uplinks: %w", err)
	}
	before = map[string]string{}
	for _, e := range entries {
		other, is := strings.CutSuffix(e.Name(), ".json")
		if !is || other == name {
			continue
		}
		r, err := s.readRecord(other)
		if err != nil {
			return false, nil, err
		}
		there = there || !r.empty() // it may just be going
		maps.Copy(before, globalsOf(r.Sysctls))
	}
	return there, before, nil
}
