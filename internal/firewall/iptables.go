package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-iptables/iptables"

	"netvmd/internal/netvm"
)

// lockWait is for how many seconds an iptables process waits for another one's lock. Without it, it waits for ever.
const lockWait = 5

// saveTimeout bounds one run of iptables-save; it takes some 3 ms and waits for no lock.
const saveTimeout = 10 * time.Second

// iptFamily is the iptables of one address family.
type iptFamily struct {
	v4      bool
	program string // its path
	commands
}

// commands is the part of go-iptables that we use; it runs one process per call.
type commands interface {
	Insert(table, chain string, pos int, rule ...string) error
	Replace(table, chain string, pos int, rule ...string) error
	Append(table, chain string, rule ...string) error
	Delete(table, chain string, rule ...string) error
	DeleteById(table, chain string, id int) error
	NewChain(table, chain string) error
	ClearChain(table, chain string) error // creates a missing one
	ClearAndDeleteChain(table, chain string) error
}

// ipv6Sysctls is there when the kernel speaks IPv6; not so when it was started with ipv6.disable=1.
const ipv6Sysctls = "/proc/sys/net/ipv6/conf"

// iptBackend keeps our chains in the tables raw, filter and nat.
type iptBackend struct {
	log      *slog.Logger
	legacy   bool         // not over nf_tables
	families []*iptFamily // IPv4, and IPv6 if the kernel speaks it
	base     string       // auto, always or never
	lock     string       // a file; "" = none
	recall   func() []netvm.Admission
	nft      *nftReader // sees what others have in nftables
	refusals refusals
}

// newIPTables returns the iptables backend. The program is "iptables", as PATH finds it, unless another is given; the
// programs for IPv6 and for reading are its siblings. Where the kernel speaks IPv6, ip6tables must be there: without it
// AppVMs would go unchecked.
func newIPTables(ctx context.Context, program string, o Options) (*iptBackend, error) {
	path, err := lookProgram(cmp.Or(program, "iptables"))
	if err != nil {
		return nil, fmt.Errorf("iptables: %w: install the package iptables", err)
	}
	b := &iptBackend{
		log: o.Log, base: cmp.Or(o.Base, KindAuto), lock: o.Lock, recall: o.recall, nft: &nftReader{},
		refusals: newRefusals(o),
	}
	version, err := runProgram(ctx, path, "--version")
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	// "iptables v1.8.9 (nf_tables)"; before 1.8 there was but one kind, and it said nothing.
	b.legacy = !strings.Contains(version, "(nf_tables)")
	if err := b.addFamily(ctx, path, iptables.ProtocolIPv4); err != nil {
		return nil, err
	}
	_, err = os.Stat(ipv6Sysctls)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("iptables: look whether the kernel speaks IPv6: %w", err)
	}
	return b, b.addFamily(ctx, sixth(path), iptables.ProtocolIPv6)
}

// addFamily adds an address family, if its programs run and the kernel answers them.
func (b *iptBackend) addFamily(ctx context.Context, path string, protocol iptables.Protocol) error {
	ipt, err := iptables.New(iptables.Path(path), iptables.IPFamily(protocol), iptables.Timeout(lockWait))
	if err != nil {
		return fmt.Errorf("iptables: %s: %w", path, err)
	}
	f := &iptFamily{v4: protocol == iptables.ProtocolIPv4, program: path, commands: ipt}
	if _, err := f.save(ctx); err != nil {
		return fmt.Errorf("iptables: the kernel does not answer (load the module, run as root): %w", err)
	}
	b.families = append(b.families, f)
	return nil
}

// sixth gives the path of the same program for IPv6: …/iptables-nft becomes …/ip6tables-nft.
func sixth(path string) string {
	dir, name := filepath.Split(path)
	return dir + strings.Replace(name, "iptables", "ip6tables", 1)
}

// Name is "iptables".
func (b *iptBackend) Name() string { return KindIPTables }

// Apply implements Backend. Of who may send from where, it keeps what stands in the kernel: what is lost is closed
// until it is admitted again.
func (b *iptBackend) Apply(ctx context.Context, targets []netvm.Target) ([]string, error) {
	want, err := b.wanted(targets)
	if err != nil {
		return nil, err
	}
	changes, err := b.refusals.lift()
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	more, err := b.bring(ctx, func(s *iptState, _ table) table { return want.family(s.v4) })
	return append(changes, more...), err
}

// Check implements Backend.
func (b *iptBackend) Check(ctx context.Context, targets []netvm.Target) ([]string, error) {
	want, err := b.wanted(targets)
	if err != nil {
		return nil, err
	}
	out, states, err := b.faults(ctx)
	for _, s := range states {
		out = append(out, describeDifferences(s.table, want.family(s.v4))...)
	}
	return out, err
}

// Faults implements Backend.
func (b *iptBackend) Faults(ctx context.Context) ([]string, error) {
	out, _, err := b.faults(ctx)
	return out, err
}

func (b *iptBackend) faults(ctx context.Context) ([]string, []*iptState, error) {
	out, err := b.refusals.limited()
	if err != nil {
		return nil, nil, fmt.Errorf("iptables: %w", err)
	}
	unlock, err := lockExisting(ctx, b.lock)
	if err != nil {
		return nil, nil, fmt.Errorf("iptables: %w", err)
	}
	defer unlock()
	states, err := b.read(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range states {
		if s.fault != "" {
			out = append(out, s.fault)
		}
	}
	return out, states, nil
}

// Targets implements Backend.
func (b *iptBackend) Targets(ctx context.Context) ([]netvm.Target, error) {
	states, err := b.read(ctx)
	var out []netvm.Target
	for _, s := range states {
		out = append(out, s.table.targets()...)
	}
	return out, err
}

// wanted checks the targets and gives the table that they ask for.
func (b *iptBackend) wanted(targets []netvm.Target) (table, error) {
	want, err := wanted(targets)
	if err == nil && !b.speaksIPv6() && len(want.family(false)) > 0 {
		err = errNoIPv6
	}
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	return want, nil
}

// errNoIPv6 is about an IPv6 address where nothing can be done with it.
var errNoIPv6 = errors.New("the kernel speaks no IPv6")

func (b *iptBackend) speaksIPv6() bool { return len(b.families) > 1 }

// family gives the part of the table that is of one family.
func (t table) family(v4 bool) table {
	out := table{}
	for _, v := range t.sorted(v4) {
		out[v] = t[v]
	}
	return out
}

// save reads all rules of the family with one process.
func (f *iptFamily) save(ctx context.Context) (ruleset, error) {
	out, err := runProgram(ctx, f.program+"-save")
	if err != nil {
		return nil, fmt.Errorf("iptables: read the rules: %w", err)
	}
	rules, err := parseSave(out)
	if err != nil {
		return nil, fmt.Errorf("iptables: read the rules: %s-save: %w", f.program, err)
	}
	return rules, nil
}

func runProgram(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return "", fmt.Errorf("%s: %w: %s", path, err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return string(out), nil
}

// iptState is what the kernel holds of ours in one family.
type iptState struct {
	*iptFamily
	rules    ruleset
	table    table
	admitted []netvm.Admission
	base     bool   // the base firewall is wanted
	fault    string // what is wrong with the rules; "" when they are ours, whole
}

// readLocked gives the state of each family, which changes by our programs' hands no more until it is unlocked: whoever
// had the lock may have been half through a change.
func (b *iptBackend) readLocked(ctx context.Context) ([]*iptState, func(), error) {
	unlock, err := lockFile(ctx, b.lock)
	if err != nil {
		return nil, nil, fmt.Errorf("iptables: %w", err)
	}
	states, err := b.read(ctx)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return states, unlock, nil
}

// read gives the state of each family.
func (b *iptBackend) read(ctx context.Context) ([]*iptState, error) {
	var out []*iptState
	for _, f := range b.families {
		rules, err := f.save(ctx)
		if err != nil {
			return nil, err
		}
		base, err := b.wantsBase(ctx, f, rules)
		if err != nil {
			return nil, err
		}
		s := &iptState{iptFamily: f, rules: rules, base: base}
		s.table = parseTargets(rules["nat"][rules.live(dnsChains)], rules["raw"][rules.live(zoneChains)])
		s.admitted = parseAdmissions(rules["raw"][chainAllowed])
		if fault := s.findFault(); fault != "" {
			s.fault = filepath.Base(f.program) + ": " + fault
		}
		out = append(out, s)
	}
	return out, nil
}

// findFault says where the rules are not what they must be for the targets and admissions that they hold.
func (s *iptState) findFault() string {
	for _, h := range hooks(s.base) {
		now := s.rules[h.table][h.name]
		if !startsWith(now, h.jumps) {
			return fmt.Sprintf("%s of table %s does not begin with %q", h.name, h.table, h.jumps)
		}
		if stray := h.strays(now[len(h.jumps):]); len(stray) > 0 {
			return fmt.Sprintf("%s of table %s has a second %q", h.name, h.table, now[len(h.jumps)+stray[0]])
		}
	}
	for _, c := range s.wantedChains() {
		if now := s.rules[c.table][c.name]; now == nil || !slices.Equal(now, c.rules) {
			return fmt.Sprintf("chain %s has other rules than this version of netvmd", c.name)
		}
	}
	for _, alt := range []alternation{dnsChains, zoneChains} {
		live := s.rules.live(alt)
		if live == "" {
			return fmt.Sprintf("chain %s is not one jump to %s or %s", alt.parent, alt.a, alt.b)
		}
		if !slices.Equal(s.rules[alt.table][live], alt.render(s.table)) {
			return fmt.Sprintf("chain %s has rules that are not of netvmd", live)
		}
		if s.rules[alt.table][alt.spare(live)] != nil {
			return fmt.Sprintf("chain %s was left over", alt.spare(live))
		}
	}
	return s.findRemains()
}

// wantedChains are the chains that no change of targets touches, each after those that it jumps to.
func (s *iptState) wantedChains() []staticChain {
	return append(s.spoofChains(s.admitted, s.rules["raw"][chainSpoof]), s.static(s.base)...)
}

// findRemains looks for what is left of a base firewall that is not wanted.
func (s *iptState) findRemains() string {
	for _, c := range s.baseChains() {
		if !s.base && s.rules[c.table][c.name] != nil {
			return fmt.Sprintf("chain %s was left over", c.name)
		}
	}
	return ""
}
