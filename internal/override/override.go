// Package override keeps what callers on the bus want instead of the uplink's resolvers: one override for each living
// caller, and one that outlives its caller. All are in files, so that a netvmd that dies loses none: a VPN's resolvers
// stay in force until the bus says that the VPN has gone.
package override

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"netvmd/internal/netvm"
)

const (
	// MaxServers bounds an override. No more resolvers of a family are ever asked than there are virtual addresses of
	// it, and the C library takes three nameservers (MAXNS in resolv.h): eight is plenty for both families.
	MaxServers = 8
	// MaxHolders bounds the callers that have an override at a time. A netvm has a VPN or two; the bound keeps a
	// program gone wild from filling the memory and the runtime folder.
	MaxHolders = 32
)

// The files: one in the state folder, which outlives a boot, and one in the runtime folder, which does not, as no caller
// does either.
const (
	persistentFile = "override.json"
	livingFile     = "overrides.json"
)

// Stack is the overrides in force, the newest on top. Its methods may be called from any goroutine; readers never wait for
// a disk.
type Stack struct {
	persistent, living string // paths

	mu  sync.Mutex // held by whoever changes the stack, while it writes
	now atomic.Pointer[contents]
}

// contents is one state of the stack; it is never changed.
type contents struct {
	entries []entry // the newest first
	// What is wrong with each file; nil = nothing.
	persistentFault, livingFault error
}

// entry is an override with its place: a clock that is set back, as a netvm's is after the boot, must not change who is on
// top.
type entry struct {
	netvm.Override
	number uint64 // the higher, the newer
}

// Open reads the overrides of before. A file that cannot be read or makes no sense is one of Problems, and ignored.
func Open(stateDir, runtimeDir string) *Stack {
	s := &Stack{
		persistent: filepath.Join(stateDir, persistentFile),
		living:     filepath.Join(runtimeDir, livingFile),
	}
	var c contents
	var persistent, living []entry
	persistent, c.persistentFault = read(s.persistent, true)
	living, c.livingFault = read(s.living, false)
	c.entries = slices.Concat(persistent, living)
	slices.SortStableFunc(c.entries, func(a, b entry) int { return cmp.Compare(b.number, a.number) })
	s.now.Store(&c)
	return s
}

// List returns the overrides, the newest, which is in force, first.
func (s *Stack) List() []netvm.Override {
	entries := s.now.Load().entries
	out := make([]netvm.Override, len(entries))
	for i, e := range entries {
		out[i] = e.Override
	}
	return out
}

// Holders are the callers whose leaving ends an override.
func (s *Stack) Holders() []string {
	var out []string
	for _, e := range s.now.Load().entries {
		if !e.Persistent {
			out = append(out, e.Holder)
		}
	}
	return out
}

// Problems says what is wrong with the files, a sentence each, with what to do.
func (s *Stack) Problems() []string {
	c := s.now.Load()
	var out []string
	if c.persistentFault != nil {
		out = append(out, fmt.Sprintf("The persistent DNS override is not in force: %v. Set it again with `netvmctl dns set "+
			"--persistent`, or do without it with `netvmctl dns clear`.", c.persistentFault))
	}
	if c.livingFault != nil {
		out = append(out, fmt.Sprintf("DNS overrides of running programs may be lost, or come back, when netvmd is restarted: "+
			"%v. Mend or delete the file, then connect the VPN again.", c.livingFault))
	}
	return out
}

// Set puts an override on top; its caller's older one goes, and so does the older persistent one when this is persistent.
// Since is set where it is zero. What cannot be written is refused and changes nothing. Errors are a netvm.InvalidError,
// netvm.ErrTooMany, or the file system's.
func (s *Stack) Set(o netvm.Override) error {
	holder := o.Holder
	o, err := tidy(o)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.now.Load()
	next := *before
	next.entries = slices.DeleteFunc(slices.Clone(before.entries), func(e entry) bool {
		return e.isOf(holder) || o.Persistent && e.Persistent
	})
	if !o.Persistent && len(next.of(false)) >= MaxHolders {
		return fmt.Errorf("%w: %d programs have a DNS override already", netvm.ErrTooMany, MaxHolders)
	}
	number := before.highest() + 1
	if number > maxNumber { // what was written could not be read again
		return fmt.Errorf("no override can come after number %d: delete %s and %s, and restart netvmd", maxNumber, s.persistent, s.living)
	}
	next.entries = slices.Insert(next.entries, 0, entry{o, number})
	if !o.Persistent {
		return s.put(next, s.saveLiving)
	}
	if err := s.savePersistent(&next); err != nil {
		return err
	}
	if len(next.of(false)) != len(before.of(false)) {
		// The caller's older one may stay in its file: it is below the new one, and ends with its caller.
		next.livingFault = s.saveLiving(&next)
	}
	s.now.Store(&next)
	return nil
}

// Clear takes the holder's override back or, if it has none, the persistent one; changed tells whether there was one of
// them, or a broken file of it. What cannot be written is refused and changes nothing.
func (s *Stack) Clear(holder string) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.now.Load()
	if next, had := before.without(holder); had {
		return true, s.put(next, s.saveLiving)
	}
	if len(before.of(true)) == 0 && before.persistentFault == nil {
		return false, nil
	}
	next := *before
	next.entries = before.of(false)
	return true, s.put(next, s.savePersistent)
}

// Left ends the override of a holder that has left the bus; changed tells whether it had one.
func (s *Stack) Left(holder string) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, had := s.now.Load().without(holder)
	if !had {
		return false
	}
	// It ends either way: if it stays in the file, the bus says again after a restart that its holder is not there.
	next.livingFault = s.saveLiving(&next)
	s.now.Store(&next)
	return true
}

// put writes, then makes it the state of the stack.
func (s *Stack) put(next contents, save func(*contents) error) error {
	if err := save(&next); err != nil {
		return err
	}
	s.now.Store(&next)
	return nil
}

func (s *Stack) savePersistent(c *contents) error {
	if err := write(s.persistent, c.of(true)); err != nil {
		return err
	}
	c.persistentFault = nil
	return nil
}

func (s *Stack) saveLiving(c *contents) error {
	if err := write(s.living, c.of(false)); err != nil {
		return err
	}
	c.livingFault = nil
	return nil
}

// isOf tells whether it is the living override of that holder.
func (e entry) isOf(holder string) bool { return !e.Persistent && e.Holder == holder }

// of are the persistent entries, or the living ones.
func (c *contents) of(persistent bool) []entry {
	return slices.DeleteFunc(slices.Clone(c.entries), func(e entry) bool { return e.Persistent != persistent })
}

// without leaves out a holder's override; had tells whether there is one.
func (c *contents) without(holder string) (next contents, had bool) {
	next = *c
	next.entries = slices.DeleteFunc(slices.Clone(c.entries), func(e entry) bool { return e.isOf(holder) })
	return next, len(next.entries) < len(c.entries)
}

func (c *contents) highest() uint64 {
	if len(c.entries) == 0 {
		return 0
	}
	return c.entries[0].number
}

var errNoHolder = errors.New("a DNS override that is not persistent needs a holder, the name of its caller on the bus")

// tidy checks an override, and gives it the form in which it is kept.
func tidy(o netvm.Override) (netvm.Override, error) {
	switch {
	case len(o.Servers) == 0:
		return o, netvm.InvalidError("no server is named: to end an override, call ClearDnsOverride")
	case len(o.Servers) > MaxServers:
		return o, netvm.InvalidError(fmt.Sprintf("%d servers: an override has at most %d", len(o.Servers), MaxServers))
	case o.Persistent:
		o.Holder = "" // nobody's leaving ends it
	case o.Holder == "" || o.Holder != printable(o.Holder):
		return o, errNoHolder
	}
	servers := make([]netip.Addr, 0, len(o.Servers))
	for _, a := range o.Servers {
		a = a.Unmap()
		if !a.IsValid() || a.Zone() != "" {
			return o, netvm.InvalidError(fmt.Sprintf("server %q is no plain IP address", a))
		}
		if slices.Contains(servers, a) {
			return o, netvm.InvalidError(fmt.Sprintf("server %s is named twice", a))
		}
		servers = append(servers, a)
	}
	o.Servers = servers
	o.By = printable(o.By)
	if o.Since.IsZero() {
		o.Since = time.Now()
	}
	o.Since = o.Since.UTC().Round(0) // as a file keeps it: without the monotonic clock's reading
	return o, nil
}
