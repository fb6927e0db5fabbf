package firewall

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
)

// The kernel sends one host at most six ICMP errors, then one a second (icmp_ratelimit, in ms, default 1000): the
// seventh refused query in a row would be left without its answer and wait for a timeout. The limit over all hosts,
// icmp_msgs_per_sec, stays. Below /proc/sys/net each network namespace sees its own values.
var icmpLimits = []string{
	"/proc/sys/net/ipv4/icmp_ratelimit",
	"/proc/sys/net/ipv6/icmp/ratelimit",
}

// refusals sees to it that refusals are sent however many there are.
type refusals struct {
	log *slog.Logger
	// stuck holds the files that could not be written: said once, then left alone.
	stuck map[string]bool
}

const limitsRefusals = " limits how many queries are refused"

// limited says which files still hold a limit.
func (r *refusals) limited() ([]string, error) {
	paths, err := r.limits()
	for i, path := range paths {
		paths[i] = path + limitsRefusals
	}
	return paths, err
}

// limits lists the files that still hold a limit. A missing file is that of a family that the kernel has not.
func (r *refusals) limits() ([]string, error) {
	var out []string
	for _, path := range icmpLimits {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the limit of ICMP errors: %w", err)
		}
		if strings.TrimSpace(string(text)) != "0" && !r.stuck[path] {
			out = append(out, path)
		}
	}
	return out, nil
}

// lift sets the limits to 0, which means none. A read-only /proc/sys is no reason to leave DNS as it is: it is logged.
func (r *refusals) lift() ([]string, error) {
	paths, err := r.limits()
	if err != nil {
		return nil, err
	}
	var changes []string
	for _, path := range paths {
		if err := os.WriteFile(path, []byte("0\n"), 0o644); err != nil {
			r.stuck[path] = true
			r.log.Warn("refused queries may go unanswered after the first six: set it to 0 by hand", "file", path, "error", err)
			continue
		}
		changes = append(changes, path+" set to 0: every refused query gets its answer")
	}
	return changes, nil
}

// icmpLimitDefault is the kernel's own value of both files, in ms (Linux, Documentation/networking/ip-sysctl.rst).
const icmpLimitDefault = "1000"

// restore gives the limits that are lifted the kernel's own value, and says which. What was there before us is not
// known: an admin who had lifted them himself has to do so again.
func (r *refusals) restore() (changes []string) {
	for _, path := range icmpLimits {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(text)) != "0" {
			continue
		}
		if err == nil {
			err = os.WriteFile(path, []byte(icmpLimitDefault+"\n"), 0o644)
		}
		if err != nil {
			r.log.Warn("ICMP errors stay without a limit until the next boot", "file", path, "error", err)
			continue
		}
		changes = append(changes, path+" set to "+icmpLimitDefault+", the kernel's default")
	}
	return changes
}

// AboutRefusals tells whether a fault is that the kernel limits how many queries are refused, which loading the rules
// again does not mend.
func AboutRefusals(fault string) bool { return strings.HasSuffix(fault, limitsRefusals) }
