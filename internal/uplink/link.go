package uplink

import (
	"context"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// Link brings an interface to what a Spec says of it, over netlink alone: link group, address, neighbours, up, routes. What
// was changed by others is changed back. It returns what it changed, a sentence each; when it fails, what it changed before.
func (s *Setup) Link(ctx context.Context, spec Spec) (changes []string, err error) {
	err = s.hold(ctx, spec.Interface, func(r *record) error {
		changes, err = s.link(spec, r, false)
		return err
	})
	return changes, err
}

// Unlink reverts what Link did, also of a Link that was killed half-way, and first sets the interface down. It needs no
// interface to be there.
func (s *Setup) Unlink(ctx context.Context, name string) (changes []string, err error) {
	err = s.hold(ctx, name, func(r *record) error {
		changes, err = s.unlink(name, r)
		return err
	})
	return changes, err
}

// link is Link under the lock. When another program has the interface's addresses and routes, it is left those, and whether
// it is up.
func (s *Setup) link(spec Spec, r *record, others bool) (changes []string, err error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	l, err := k.link(spec.Interface)
	switch {
	case err != nil:
		return nil, err
	case l == nil:
		return nil, fmt.Errorf("there is no such network interface")
	case spec.MAC != nil && !slices.Equal(spec.MAC, l.Attrs().HardwareAddr):
		return nil, fmt.Errorf("its MAC is %s now, and was %s", l.Attrs().HardwareAddr, spec.MAC)
	}
	w := want(spec)
	before := *r
	if err := s.announce(spec, l, w, r); err != nil {
		return nil, err
	}
	if changes, err = k.bring(l, w, sysctlsOf(spec), before, others); err != nil {
		return changes, err
	}
	r.Own, r.Hosts, r.Routes = w.own, w.hosts, w.routes
	return changes, s.writeRecord(spec.Interface, *r)
}

// bring brings a device to what is wanted, and takes away what else is ours by the record.
func (k kernel) bring(l netlink.Link, w wanted, settings []sysctl, r record, others bool) ([]string, error) {
	steps := []step{
		func() ([]string, error) { return k.group(l, uplinkGroup) },
		func() ([]string, error) { return k.settings(settings) },
	}
	// The neighbours come after the addresses: with its last address a device loses them all.
	neighbours := func() ([]string, error) { return k.neighbours(l, w.hosts, r.Hosts) }
	if others {
		return inOrder(append(steps, neighbours)...)
	}
	steps = append(steps,
		func() ([]string, error) { return k.addresses(l, w, r.Own) },
		neighbours,
		func() ([]string, error) { return k.up(l) },
		func() ([]string, error) { return k.routes(l, w.routes, r.Routes) },
	)
	return inOrder(steps...)
}

// step takes one step, and returns what it changed, also when it fails.
type step func() (changes []string, err error)

// inOrder takes steps up to the first that fails.
func inOrder(steps ...step) (changes []string, err error) {
	for _, take := range steps {
		did, err := take()
		changes = append(changes, did...)
		if err != nil {
			return changes, err
		}
	}
	return changes, nil
}

// Missing says, a sentence each, what a Link would change. It changes nothing.
func (s *Setup) Missing(spec Spec) ([]string, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	k.pretend = true
	l, err := k.link(spec.Interface)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", spec.Interface, err)
	}
	if l == nil {
		return []string{"there is no such network interface"}, nil
	}
	r, err := s.readRecord(spec.Interface)
	if err != nil {
		return nil, err
	}
	return k.bring(l, want(spec), sysctlsOf(spec), r, false)
}

// announce writes down what may be done to the device, and what it was before. What was written down of a device of the
// same name that is gone went with it.
func (s *Setup) announce(spec Spec, l netlink.Link, w wanted, r *record) error {
	a := l.Attrs()
	if r.Index != a.Index {
		*r = record{Index: a.Index, Group: a.Group, NM: r.NM, ResolvConf: r.ResolvConf, Sysctls: globalsOf(r.Sysctls)}
	}
	r.Own, r.Hosts, r.Routes = union(r.Own, w.own), union(r.Hosts, w.hosts), union(r.Routes, w.routes)
	if err := s.rememberSysctls(spec.Interface, r, sysctlsOf(spec)); err != nil {
		return err
	}
	return s.writeRecord(spec.Interface, *r)
}

// union is a with what only b has.
func union[T comparable](a, b []T) []T {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}

// unlink is Unlink under the lock.
func (s *Setup) unlink(name string, r *record) (changes []string, err error) {
	if r.Index == 0 && len(r.Sysctls) == 0 {
		return nil, s.writeRecord(name, *r) // a killed Link may have left the half of one
	}
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	l, err := k.link(name)
	if err != nil {
		return nil, err
	}
	var steps []step
	if l != nil && l.Attrs().Index == r.Index {
		steps = []step{
			func() ([]string, error) { return k.down(l) },
			func() ([]string, error) { return k.routes(l, nil, r.Routes) },
			func() ([]string, error) { return k.neighbours(l, nil, r.Hosts) },
			func() ([]string, error) { return k.addresses(l, wanted{}, r.Own) },
			func() ([]string, error) { return k.group(l, r.Group) },
		}
	}
	steps = append(steps, func() ([]string, error) { return s.restoreSysctls(name, r.Sysctls) })
	if changes, err = inOrder(steps...); err != nil {
		return changes, err
	}
	*r = record{NM: r.NM, Resolved: r.Resolved, ResolvConf: r.ResolvConf}
	return changes, s.writeRecord(name, *r)
}
