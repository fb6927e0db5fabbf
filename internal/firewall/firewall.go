// Package firewall is the netfilter side: it makes the kernel translate the virtual DNS addresses to their targets,
// refuse at once the ones that have none, and forget flows that lead to a resolver of the past.
//
// Two backends offer the same behaviour: nftables (its own tables, changed over netlink in one transaction) and
// iptables (its own chains, changed by one jump). Both are level-triggered: told what should be, they read what is
// and write the difference.
package firewall

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"netvmd/internal/netvm"
)

// The kinds that New takes.
const (
	KindAuto     = "auto"
	KindNFTables = "nftables"
	KindIPTables = "iptables"
)

// vifGroup is the link group of every vif, the same as in Qubes. The rules know a vif by nothing else.
const vifGroup = 2

// dnsPort is the port that is translated, of UDP and of TCP (RFC 1035, 4.2).
const dnsPort = 53

// Backend is one way to reach the kernel's packet filter. Its methods but Watch are for one goroutine at a time.
type Backend interface {
	// Name is "nftables" or "iptables".
	Name() string

	// Loaded tells whether the kernel has targets of ours, of whatever age.
	Loaded(ctx context.Context) (bool, error)

	// Apply brings the kernel to exactly these targets, the unserved ones too, and to our rules. A virtual address
	// that is not listed is forgotten. It returns what it changed, a short sentence each; when there was no
	// difference it writes nothing and returns none. After an error the kernel has the last good targets.
	Apply(ctx context.Context, targets []netvm.Target) (changes []string, err error)

	// Check says what Apply would change, and changes nothing.
	Check(ctx context.Context, targets []netvm.Target) (differences []string, err error)

	// Faults says what of the rules is missing or damaged, which Ensure would mend, and changes nothing.
	Faults(ctx context.Context) (faults []string, err error)

	// Rehearse tries, and changes nothing, whether kernel and programs have all that our rules need, and whether the
	// kernel has flowtables for us. What is missing comes in the words of the program that loads the rules, a line each.
	Rehearse(ctx context.Context) (missing []string, flowtables bool, err error)

	// OwnBase tells whether the base firewall is ours to load; if not, it is Qubes' or, with Options.Base, the admin's.
	OwnBase(ctx context.Context) (bool, error)

	// Targets says where the kernel leads queries now, ordered by virtual address.
	Targets(ctx context.Context) ([]netvm.Target, error)

	// Counters lists what was dropped and refused since the rules were loaded, in the order of the rules.
	Counters(ctx context.Context) ([]netvm.Counter, error)

	// Watch calls hint whenever somebody may have changed our objects, with the name and pid of the process where the
	// kernel tells it, else with "". A hint may be idle: one comes at the start, when the watch stands, and our own
	// changes cause some too. Watch returns nil when ctx ends.
	Watch(ctx context.Context, hint func(who string)) error

	Gate
}

// Gate is the part of a backend that knows which vif may send from which address. Everything else that comes from a
// vif is dropped and counted before conntrack sees it, and so is a packet from elsewhere that has such an address.
// Each call is one transaction in nftables; in iptables its rules are written in an order that fails closed.
type Gate interface {
	// Ensure loads the ruleset where it is missing or damaged; the targets that the kernel has stay, and without any
	// the given virtual addresses are refused. It returns what it changed, a short sentence each.
	Ensure(ctx context.Context, virtual []netip.Addr) (changes []string, err error)

	// Admit lets the vif send from exactly these addresses. An address that another vif has moves to this one.
	Admit(ctx context.Context, vif string, addrs []netip.Addr) error

	// Expel takes from the vif all that it has, and gives the heirs theirs. It does nothing about a vif that has nothing.
	Expel(ctx context.Context, vif string, heirs []netvm.Admission) error

	// Admitted lists who may send from where, ordered by vif, then address; nobody, where no rules are loaded.
	Admitted(ctx context.Context) ([]netvm.Admission, error)

	// Strays lists what others made of admissions: those that stand in some of the places where they must, so that more or
	// less passes than should.
	Strays(ctx context.Context) ([]netvm.Admission, error)

	// Accelerate lets established flows between these devices, vifs or uplinks, and those named before take the short
	// way through the kernel's flowtable. Without flowtables it does nothing. The kernel itself forgets a device that
	// is gone.
	Accelerate(ctx context.Context, devices []string) error
}

// Options say what New makes. Empty words mean "auto".
type Options struct {
	Kind      string // firewall.backend: auto, nftables or iptables
	Base      string // firewall.base: auto, always or never
	Flowtable string // firewall.flowtable: auto or never
	// Lock is a file that is locked while a ruleset is loaded, so that the daemon, netvmctl and many hotplug programs
	// do not load at the same time; "" = no lock.
	Lock string
	// Known says who must be able to send from where, for the moment when rules are loaded and the kernel knows nobody
	// any more: then they are admitted in the same step. nil = nobody is known.
	Known func() ([]netvm.Admission, error)
	Log   *slog.Logger
}

// recall gives those who are known, and logs why they are not.
func (o Options) recall() []netvm.Admission {
	if o.Known == nil {
		return nil
	}
	known, err := o.Known()
	if err == nil {
		err = checkAdmissions(known)
	}
	if err != nil {
		o.Log.Warn("nobody can say which vif may send from where: vifs stay closed until each is admitted again", "error", err)
		return nil
	}
	return known
}

// LockPath is that of Options.Lock below a runtime folder.
func LockPath(runtimeDir string) string { return filepath.Join(runtimeDir, "firewall.lock") }

// New returns a backend for the network namespace of the calling thread. With "auto" that is nftables if the nft
// program is there and the kernel has nf_tables, else iptables.
func New(ctx context.Context, o Options) (Backend, error) {
	kind, log := cmp.Or(o.Kind, KindAuto), o.Log
	var tried []error
	if kind == KindNFTables || kind == KindAuto {
		b, err := newNFTables(ctx, o)
		if err == nil {
			return b, nil
		}
		tried = append(tried, err)
	}
	if kind == KindIPTables || kind == KindAuto {
		b, err := newIPTables(ctx, "", o)
		if err == nil {
			if len(tried) > 0 {
				log.Info("firewall falls back to iptables", "reason", errors.Join(tried...))
			}
			return b, nil
		}
		tried = append(tried, err)
	}
	if len(tried) > 0 {
		return nil, fmt.Errorf("no firewall to work with: %w", errors.Join(tried...))
	}
	return nil, fmt.Errorf("firewall backend %q: want %s, %s or %s", kind, KindAuto, KindNFTables, KindIPTables)
}

// lookProgram finds a program also when PATH lacks the system's folders, as under some service managers.
func lookProgram(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
		if info, statErr := os.Stat(dir + name); statErr == nil && info.Mode()&0o111 != 0 {
			return dir + name, nil
		}
	}
	return "", err
}
