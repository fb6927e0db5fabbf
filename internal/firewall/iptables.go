package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
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
	DeleteById(table, chain string, id int) error
	ClearChain(table, chain string) error // creates a missing one
	ClearAndDeleteChain(table, chain string) error
}

// iptBackend keeps our chains in the tables raw, nat and filter.
type iptBackend struct {
	log      *slog.Logger
	legacy   bool // not over nf_tables
	v4       *iptFamily
	v6       *iptFamily // nil without ip6tables
	v6Err    error      // why
	v6Idle   bool       // there was nothing of ours in ip6tables when we looked last, and nothing is wanted
	refusals refusals
}

// newIPTables returns the iptables backend. The program is "iptables", as PATH finds it, unless another is given; the
// programs for IPv6 and for reading are its siblings.
func newIPTables(ctx context.Context, program string, log *slog.Logger) (*iptBackend, error) {
	if program == "" {
		program = "iptables"
	}
	path, err := lookProgram(program)
	if err != nil {
		return nil, fmt.Errorf("iptables: %w: install the package iptables", err)
	}
	b := &iptBackend{log: log, refusals: refusals{log: log, stuck: map[string]bool{}}}
	if b.v4, err = newIPTFamily(path, iptables.ProtocolIPv4); err != nil {
		return nil, err
	}
	version, err := runProgram(ctx, path, "--version")
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	// "iptables v1.8.9 (nf_tables)"; before 1.8 there was but one kind, and it said nothing.
	b.legacy = !strings.Contains(version, "(nf_tables)")
	b.v6, b.v6Err = newIPTFamily(sixth(path), iptables.ProtocolIPv6)
	if _, err := b.v4.save(ctx); err != nil {
		return nil, fmt.Errorf("iptables: the kernel does not answer (load the module, run as root): %w", err)
	}
	return b, nil
}

// sixth gives the path of the same program for IPv6: …/iptables-nft becomes …/ip6tables-nft.
func sixth(path string) string {
	dir, name := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	return dir + strings.Replace(name, "iptables", "ip6tables", 1)
}

func newIPTFamily(path string, protocol iptables.Protocol) (*iptFamily, error) {
	ipt, err := iptables.New(iptables.Path(path), iptables.IPFamily(protocol), iptables.Timeout(lockWait))
	if err != nil {
		return nil, fmt.Errorf("iptables: %s: %w", path, err)
	}
	return &iptFamily{v4: protocol == iptables.ProtocolIPv4, program: path, commands: ipt}, nil
}

// Name is "iptables".
func (b *iptBackend) Name() string { return KindIPTables }

// Apply implements Backend.
func (b *iptBackend) Apply(ctx context.Context, targets []netvm.Target) ([]string, error) {
	want, err := wanted(targets)
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	changes, err := b.refusals.lift()
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	families, err := b.families(want)
	if err != nil {
		return changes, err
	}
	for _, f := range families {
		more, err := b.applyFamily(ctx, f, want.family(f.v4))
		changes = append(changes, more...)
		if err != nil {
			return changes, err
		}
	}
	return changes, nil
}

// applyFamily brings one family to its targets: NAT first, then the zones. In between, a client that keeps its port
// is still with the old resolver; the other way round, its new flow would be translated by the old rules.
func (b *iptBackend) applyFamily(ctx context.Context, f *iptFamily, want table) ([]string, error) {
	state, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	if b.skip(f, state, want) || state.fault == "" && len(differing(state.table, want)) == 0 {
		return nil, nil
	}
	for _, step := range []func(context.Context, *iptState, table) error{f.writeFilter, f.writeNAT, f.writeZones} {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("iptables: %w", err)
		}
		if err := step(ctx, state, want); err != nil {
			return nil, fmt.Errorf("iptables: %w", err)
		}
	}
	after, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	if after.fault != "" || len(differing(after.table, want)) != 0 {
		return nil, fmt.Errorf("iptables: %s does not show what was written: %s %s", f.program, after.fault,
			strings.Join(describeDifferences(after.table, want), "; "))
	}
	var changes []string
	if state.fault != "" {
		changes = append(changes, "ruleset loaded: "+state.fault)
	}
	return append(changes, describeChanges(state.table, want)...), nil
}

// Check implements Backend.
func (b *iptBackend) Check(ctx context.Context, targets []netvm.Target) ([]string, error) {
	want, err := wanted(targets)
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	limited, err := b.refusals.limited()
	if err != nil {
		return nil, fmt.Errorf("iptables: %w", err)
	}
	var out []string
	for _, path := range limited {
		out = append(out, path+" limits how many queries are refused")
	}
	families, err := b.families(want)
	if err != nil {
		return nil, err
	}
	for _, f := range families {
		state, err := f.read(ctx)
		if err != nil {
			return nil, err
		}
		if b.skip(f, state, want.family(f.v4)) {
			continue
		}
		if state.fault != "" {
			out = append(out, state.fault)
		}
		out = append(out, describeDifferences(state.table, want.family(f.v4))...)
	}
	return out, nil
}

// families are those to look at: IPv4, and IPv6 as soon as there is something to do.
func (b *iptBackend) families(want table) ([]*iptFamily, error) {
	wantsV6 := len(want.sorted(false)) > 0
	switch {
	case wantsV6 && b.v6 == nil:
		return nil, fmt.Errorf("iptables: no IPv6 virtual address can be served: %w", b.v6Err)
	case b.v6 == nil, b.v6Idle && !wantsV6:
		return []*iptFamily{b.v4}, nil
	}
	return []*iptFamily{b.v4, b.v6}, nil
}

// skip tells that IPv6 is not in use, and was not before, so that no chains are made for it.
func (b *iptBackend) skip(f *iptFamily, state *iptState, want table) bool {
	if f.v4 {
		return false
	}
	b.v6Idle = len(want) == 0 && !state.present
	return b.v6Idle
}

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
	rules   ruleset
	table   table
	fault   string // what is wrong with the rules; "" when they are ours, whole
	present bool   // something of ours is there
}

// read gives the state of one family.
func (f *iptFamily) read(ctx context.Context) (*iptState, error) {
	rules, err := f.save(ctx)
	if err != nil {
		return nil, err
	}
	s := &iptState{rules: rules, present: rules["nat"][chainNAT] != nil}
	s.table = parseTargets(rules["nat"][rules.live(dnsChains)], rules["raw"][rules.live(zoneChains)])
	s.fault = f.faultOf(s)
	return s, nil
}

// faultOf says where the rules are not what they must be for the targets that they hold.
func (f *iptFamily) faultOf(s *iptState) string {
	name := f.program[strings.LastIndexByte(f.program, '/')+1:]
	for _, j := range jumps {
		if rules := s.rules[j.table][j.from]; len(rules) == 0 || rules[0] != j.rule() {
			return fmt.Sprintf("%s: %s of table %s does not begin with the jump to %s", name, j.from, j.table, j.to)
		}
	}
	for _, c := range f.static() {
		if !slices.Equal(s.rules["filter"][c.name], c.rules) {
			return fmt.Sprintf("%s: chain %s has other rules than this version of netvmd", name, c.name)
		}
	}
	for _, alt := range []alternation{dnsChains, zoneChains} {
		live := s.rules.live(alt)
		if live == "" {
			return fmt.Sprintf("%s: chain %s is not one jump to %s or %s", name, alt.parent, alt.a, alt.b)
		}
		if !slices.Equal(s.rules[alt.table][live], alt.render(s.table)) {
			return fmt.Sprintf("%s: chain %s has rules that are not of netvmd", name, live)
		}
		if s.rules[alt.table][alt.spare(live)] != nil {
			return fmt.Sprintf("%s: chain %s was left over", name, alt.spare(live))
		}
	}
	return ""
}
