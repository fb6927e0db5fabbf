// Package firewall is the netfilter side: it makes the kernel translate the virtual DNS addresses to their targets,
// refuse at once the ones that have none, and forget flows that lead to a resolver of the past.
//
// Two backends offer the same behaviour: nftables (its own tables, changed over netlink in one transaction) and
// iptables (its own chains, changed by one jump). Both are level-triggered: told what should be, they read what is
// and write the difference.
package firewall

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"

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

	// Watch calls hint whenever somebody may have changed our objects, with the name and pid of the process where the
	// kernel tells it, else with "". A hint may be idle: one comes at the start, when the watch stands, and our own
	// changes cause some too. Watch returns nil when ctx ends.
	Watch(ctx context.Context, hint func(who string)) error
}

// New returns the backend of that kind for the network namespace of the calling thread. With "auto" that is nftables
// if the nft program is there and the kernel has nf_tables, else iptables.
func New(ctx context.Context, kind string, log *slog.Logger) (Backend, error) {
	var tried []error
	if kind == KindNFTables || kind == KindAuto {
		b, err := newNFTables(ctx, log)
		if err == nil {
			return b, nil
		}
		tried = append(tried, err)
	}
	if kind == KindIPTables || kind == KindAuto {
		b, err := newIPTables(ctx, "", log)
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
