package uplink

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
)

// Way is how an interface is set up.
type Way string

// The ways, in the order in which they are preferred.
const (
	NetworkManager Way = "networkmanager" // a connection in NetworkManager
	Resolved       Way = "resolved"       // netlink, and systemd-resolved is told the nameservers
	ResolvConfFile Way = "resolv.conf"    // netlink, and the nameservers are written into the file
)

// Result is what Up did.
type Result struct {
	Way     Way      `json:"way"`
	Changes []string `json:"changes"` // a sentence each; none = it was so already
	Notes   []string `json:"notes"`   // what was left alone, and why
}

// ways are the services that decide on the way: their unique names on the bus, "" = it does not run.
type ways struct{ nm, resolved string }

func (b *bus) ways(ctx context.Context) (w ways, err error) {
	if w.nm, err = b.owner(ctx, nmName); err != nil {
		return ways{}, err
	}
	w.resolved, err = b.owner(ctx, resolved)
	return w, err
}

// Up brings an interface to what a Spec says of it, in the way that fits what runs; the notes say what was left alone. When
// it fails, the changes are what was changed before.
func (s *Setup) Up(ctx context.Context, spec Spec) (result Result, err error) {
	return s.bringUp(ctx, spec, false)
}

// bringUp is Up; with again, an interface that nobody has set up is ErrReverted.
func (s *Setup) bringUp(ctx context.Context, spec Spec, again bool) (result Result, err error) {
	err = s.hold(ctx, spec.Interface, func(r *record) error {
		if again && r.empty() {
			return ErrReverted
		}
		b, err := connect(ctx)
		if err != nil {
			return err
		}
		defer b.close()
		result, err = s.up(ctx, b, spec, r)
		return err
	})
	if err == nil && len(result.Changes) > 0 {
		s.runHooks(ctx, spec.Interface)
	}
	return result, err
}

func (s *Setup) up(ctx context.Context, b *bus, spec Spec, r *record) (result Result, err error) {
	runs, err := b.ways(ctx)
	if err != nil {
		return result, err
	}
	if runs.nm != "" {
		manager, err := findDevice(ctx, b, runs.nm, spec.Interface)
		if err == nil {
			result.Way = NetworkManager
			result.Changes, err = s.upByNetworkManager(ctx, manager, spec, r)
			return result, err
		}
		if !errors.Is(err, errUnmanaged) {
			return result, err
		}
		result.Notes = append(result.Notes, "NetworkManager runs, and leaves the interface alone")
	}
	result.Changes, err = s.link(spec, r, false)
	if err != nil {
		return result, err
	}
	result.Way = runs.withoutNetworkManager()
	changes, notes, err := s.nameservers(ctx, b, result.Way, spec, r)
	result.Changes, result.Notes = append(result.Changes, changes...), append(result.Notes, notes...)
	return result, err
}

// upByNetworkManager has NetworkManager set the interface up; the group and the neighbours, of which it knows nothing, are
// set before and, as it may have set the device down in between, after.
func (s *Setup) upByNetworkManager(ctx context.Context, m *networkManager, spec Spec, r *record) (changes []string, err error) {
	return inOrder(
		func() ([]string, error) { return s.link(spec, r, true) },
		func() ([]string, error) { return s.restoreResolvConf(r, spec.Interface) }, // NetworkManager writes it, or nobody
		func() ([]string, error) {
			r.NM = m.uuid
			return nil, s.writeRecord(spec.Interface, *r)
		},
		func() ([]string, error) { return m.connect(ctx, spec) },
		func() ([]string, error) { return s.link(spec, r, true) },
	)
}

// Way says in which way Up would set an interface up now.
func (s *Setup) Way(ctx context.Context, name string) (Way, error) {
	b, err := connect(ctx)
	if err != nil {
		return "", err
	}
	defer b.close()
	runs, err := b.ways(ctx)
	if err != nil {
		return "", err
	}
	if runs.nm != "" {
		if _, err := findDevice(ctx, b, runs.nm, name); !errors.Is(err, errUnmanaged) {
			return NetworkManager, err
		}
	}
	return runs.withoutNetworkManager(), nil
}

func (w ways) withoutNetworkManager() Way {
	if w.resolved != "" {
		return Resolved
	}
	return ResolvConfFile
}

// nameservers tells the machine its nameservers.
func (s *Setup) nameservers(ctx context.Context, b *bus, way Way, spec Spec, r *record) (changes, notes []string, err error) {
	if way != ResolvConfFile || !spec.DNS {
		if changes, err = s.restoreResolvConf(r, spec.Interface); err != nil {
			return changes, nil, err
		}
	}
	switch {
	case !spec.DNS:
		if r.Resolved && way == Resolved {
			did, err := forgetResolved(ctx, b, r.Index)
			if err != nil {
				return changes, nil, err
			}
			changes, r.Resolved = append(changes, did...), false
			return changes, nil, s.writeRecord(spec.Interface, *r)
		}
		return changes, nil, nil
	case way == Resolved:
		r.Resolved = true
		if err := s.writeRecord(spec.Interface, *r); err != nil {
			return changes, nil, err
		}
		did, err := tellResolved(ctx, b, r.Index, spec.Resolvers)
		return append(changes, did...), nil, err
	}
	r.ResolvConf = s.ResolvConf
	if err := s.writeRecord(spec.Interface, *r); err != nil {
		return changes, nil, err
	}
	changes, why, err := s.resolvConf(spec.Interface, s.ResolvConf).Write(spec.Resolvers)
	if why != "" {
		notes = append(notes, fmt.Sprintf("%s is left alone: %s", s.ResolvConf, why))
	}
	return changes, notes, err
}

// resolvConf is the file as it is written for an interface.
func (s *Setup) resolvConf(name, path string) ResolvConf {
	return ResolvConf{Path: path, Saved: filepath.Join(s.Dir, name+".resolv.conf"), Protected: s.Protected}
}

// restoreResolvConf makes the file what it was, if it was written.
func (s *Setup) restoreResolvConf(r *record, name string) (changes []string, err error) {
	if r.ResolvConf == "" {
		return nil, nil
	}
	if changes, err = s.resolvConf(name, r.ResolvConf).Restore(); err != nil {
		return changes, err
	}
	r.ResolvConf = ""
	return changes, s.writeRecord(name, *r)
}

// Down reverts all that Up did, also of an Up that was killed half-way. The interface, if it is there, is set down first, so
// that nothing goes out meanwhile.
func (s *Setup) Down(ctx context.Context, name string) (changes []string, err error) {
	err = s.hold(ctx, name, func(r *record) error {
		b, err := connect(ctx)
		if err != nil {
			s.Log.Warn("the bus is not there: NetworkManager and systemd-resolved are not told", "interface", name, "error", err)
		}
		defer b.close()
		changes, err = s.downAll(ctx, b, name, r)
		return err
	})
	return changes, err
}

func (s *Setup) downAll(ctx context.Context, b *bus, name string, r *record) (changes []string, err error) {
	for _, take := range []step{
		func() ([]string, error) { return s.cut(name, r) },
		func() ([]string, error) { return s.downNetworkManager(ctx, b, name, r) },
		func() ([]string, error) { return s.downResolved(ctx, b, name, r) },
		func() ([]string, error) { return s.restoreResolvConf(r, name) },
		func() ([]string, error) { return s.unlink(name, r) },
	} {
		did, stepErr := take()
		changes, err = append(changes, did...), errors.Join(err, stepErr) // one that fails leaves the others to be done
	}
	return changes, err
}

// cut sets the interface down.
func (s *Setup) cut(name string, r *record) ([]string, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	l, err := k.link(name)
	if err != nil || l == nil || l.Attrs().Index != r.Index {
		return nil, err
	}
	return k.down(l)
}

// downNetworkManager takes the connection away. A NetworkManager that does not run finds no more of it when it starts.
func (s *Setup) downNetworkManager(ctx context.Context, b *bus, name string, r *record) (changes []string, err error) {
	if r.NM == "" {
		return nil, nil
	}
	owner, err := b.owner(ctx, nmName)
	if err != nil {
		return nil, err
	}
	if owner == "" {
		changes, err = removeProfile(r.NM)
	} else {
		changes, err = leaveNetworkManager(ctx, b, owner, name)
	}
	if err != nil {
		return changes, err
	}
	r.NM = ""
	return changes, s.writeRecord(name, *r)
}

func leaveNetworkManager(ctx context.Context, b *bus, owner, name string) (changes []string, err error) {
	m, err := findDevice(ctx, b, owner, name)
	switch {
	case errors.Is(err, errUnmanaged): // the device is gone
		m = &networkManager{bus: b, uuid: uuidOf(name)}
	case err != nil:
		return nil, err
	default:
		if changes, err = m.disconnect(ctx); err != nil {
			return changes, err
		}
	}
	did, err := m.forget(ctx)
	return append(changes, did...), err
}

// downResolved has systemd-resolved forget the interface. One that does not run, or is not asked any more, knows nothing.
func (s *Setup) downResolved(ctx context.Context, b *bus, name string, r *record) (changes []string, err error) {
	if !r.Resolved {
		return nil, nil
	}
	owner, err := b.owner(ctx, resolved)
	if err == nil && owner != "" {
		changes, err = forgetResolved(ctx, b, r.Index)
	}
	if err != nil {
		return changes, err
	}
	r.Resolved = false
	return changes, s.writeRecord(name, *r)
}
