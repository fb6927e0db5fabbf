package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used since it began, and what it holds.
type Usage struct {
	Ticks    uint64        // user and system time, in the kernel's clock ticks of 10 ms: /proc/PID/stat
	CPU      time.Duration // the same, exactly, summed over the living threads: /proc/PID/task/*/schedstat
	Switches uint64        // context switches, voluntary or not, of the living threads: one a wake-up at least
	Resident uint64        // bytes: VmRSS
}

// Since returns what was used after an earlier measurement; Resident is that of now. What a thread that has
// ended meanwhile had used is not seen any more.
func (u Usage) Since(before Usage) Usage {
	u.Ticks -= min(u.Ticks, before.Ticks)
	u.CPU -= min(u.CPU, before.CPU)
	u.Switches -= min(u.Switches, before.Switches)
	return u
}

// Usage measures the process.
func (p *Process) Usage() (Usage, error) {
	u, err := readUsage(filepath.Join("/proc", strconv.Itoa(p.PID())))
	if err != nil {
		return Usage{}, fmt.Errorf("%s: measure: %w", p.Name, err)
	}
	return u, nil
}

func readUsage(dir string) (Usage, error) {
	var u Usage
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u, err
	}
	// proc(5): the name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return u, fmt.Errorf("%s/stat has %d fields after the name", dir, len(fields))
	}
	for _, f := range fields[11:13] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return u, fmt.Errorf("%s/stat: %w", dir, err)
		}
		u.Ticks += n
	}
	threads, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return u, err
	}
	for _, t := range threads {
		if err := u.addThread(filepath.Join(dir, "task", t.Name())); err != nil {
			return u, err
		}
	}
	resident, err := statusNumber(dir, "VmRSS")
	u.Resident = resident * 1024
	return u, err
}

func (u *Usage) addThread(dir string) error {
	sched, err := os.ReadFile(filepath.Join(dir, "schedstat"))
	if err != nil {
		return err
	}
	onCPU, _, _ := strings.Cut(string(sched), " ")
	ns, err := strconv.ParseInt(onCPU, 10, 64)
	if err != nil {
		return fmt.Errorf("%s/schedstat: %w", dir, err)
	}
	u.CPU += time.Duration(ns)
	for _, key := range []string{"voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"} {
		n, err := statusNumber(dir, key)
		if err != nil {
			return err
		}
		u.Switches += n
	}
	return nil
}

// statusNumber reads a number from a line "KEY:  number" or "KEY:  number kB" of a status file.
func statusNumber(dir, key string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		name, value, ok := strings.Cut(line, ":")
		if !ok || name != key {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s/status: %s: %w", dir, key, err)
		}
		return n, nil
	}
	return 0, fmt.Errorf("%s/status has no %s", dir, key)
}
