package firewall

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	// memory is a file that holds what the limits were before us, for restore; "" = it is not remembered.
	memory string
	// stuck holds the files that could not be written: said once, then left alone.
	stuck map[string]bool
}

func newRefusals(o Options) refusals {
	r := refusals{log: o.Log, stuck: map[string]bool{}}
	if o.Lock != "" {
		r.memory = filepath.Join(filepath.Dir(o.Lock), "icmp-limits.json")
	}
	return r
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
	if err := r.remember(paths); err != nil {
		r.log.Debug("what the limits of ICMP errors were is not remembered", "error", err)
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

// remember writes down what these limits are before any of them is lifted. The first time counts: what comes later is
// somebody's answer to our own change. The kernel's own value differs from version to version.
func (r *refusals) remember(paths []string) error {
	if r.memory == "" || len(paths) == 0 {
		return nil
	}
	if _, err := os.Stat(r.memory); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	limits := map[string]int{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if limits[path], err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	text, err := json.Marshal(limits)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.memory), 0o755); err != nil {
		return err
	}
	// In one step: a program that is killed leaves all of it or nothing. Two that write it at a time write the same.
	fresh := r.memory + ".new"
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, r.memory)
}

// restore gives the limits that are still lifted what they were before us, forgets that, and says which it gave.
func (r *refusals) restore() (changes []string) {
	limits, err := r.remembered()
	for path, limit := range limits {
		text, readErr := os.ReadFile(path)
		if readErr == nil && strings.TrimSpace(string(text)) != "0" {
			continue // somebody else's
		}
		if readErr == nil {
			readErr = os.WriteFile(path, []byte(strconv.Itoa(limit)+"\n"), 0o644)
		}
		if readErr != nil {
			err = errors.Join(err, readErr)
			continue
		}
		changes = append(changes, fmt.Sprintf("%s set to %d again", path, limit))
	}
	if err == nil && limits != nil {
		err = os.Remove(r.memory)
	}
	if err != nil {
		r.log.Warn("ICMP errors may stay without a limit until the next boot", "error", err)
	}
	slices.Sort(changes)
	return changes
}

// remembered reads what the limits were; nil, where nothing was remembered.
func (r *refusals) remembered() (map[string]int, error) {
	if r.memory == "" {
		return nil, nil
	}
	text, err := os.ReadFile(r.memory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	limits, err := parseLimits(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.memory, err)
	}
	return limits, nil
}

// parseLimits reads limits in ms by their file, which must be one of ours.
func parseLimits(text []byte) (map[string]int, error) {
	var limits map[string]int
	if err := json.Unmarshal(text, &limits); err != nil {
		return nil, err
	}
	for path, limit := range limits {
		if !slices.Contains(icmpLimits, path) || limit <= 0 {
			return nil, fmt.Errorf("%.80q: %d is no limit of ICMP errors", path, limit)
		}
	}
	return limits, nil
}

// AboutRefusals tells whether a fault is that the kernel limits how many queries are refused, which loading the rules
// again does not mend.
func AboutRefusals(fault string) bool { return strings.HasSuffix(fault, limitsRefusals) }
