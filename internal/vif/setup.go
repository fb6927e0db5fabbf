package vif

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// Gate is what the firewall knows of vifs.
type Gate interface {
	// Ensure loads the rules where they are missing or damaged, and says what it did.
	Ensure(ctx context.Context, virtual []netip.Addr) (changes []string, err error)
	// Admit lets the vif send from exactly these addresses, and nobody else.
	Admit(ctx context.Context, vif string, addrs []netip.Addr) error
	// Expel takes from the vif all that it has, and gives the heirs theirs.
	Expel(ctx context.Context, vif string, heirs []netvm.Admission) error
	// Admitted lists who may send from where.
	Admitted(ctx context.Context) ([]netvm.Admission, error)
	// Strays lists what others made of admissions: what stands in some of the places where it must, and not in all.
	Strays(ctx context.Context) ([]netvm.Admission, error)
	// Accelerate lets established flows over these devices take the short way, where the kernel has one.
	Accelerate(ctx context.Context, devices []string) error
}

// Flows forgets every flow that one of the addresses began or answers.
type Flows interface {
	PurgeAddresses(ctx context.Context, addrs []netip.Addr) error
}

// rollbackTimeout is for closing a vif again; it takes some 20 ms, with iptables 100.
const rollbackTimeout = 10 * time.Second

// Setup brings vifs up and takes them down, in the network namespace of the thread that opened it. Its methods may
// run in many programs at the same time: each vif is locked meanwhile.
type Setup struct {
	Gate    Gate
	Flows   Flows
	Virtual []netip.Addr // virtual DNS addresses, which are refused where no rules are loaded yet
	// Hide loads the rules of a namespace that hides an AppVM's address.
	Hide  func(ctx context.Context, namespace int, h netvm.Hiding) error
	Hooks string // folder of the admin's hooks; "" = there are none
	Log   *slog.Logger

	records Records
	locks   locks
	kernel  *kernel
}

// Open completes a Setup whose exported fields are filled in; runtimeDir is made if it is missing.
func (s *Setup) Open(runtimeDir string) error {
	if err := os.MkdirAll(runtimeDir, 0o755); err != nil {
		return fmt.Errorf("runtime_dir: %w", err)
	}
	k, err := openKernel()
	if err != nil {
		return err
	}
	s.records, s.locks, s.kernel = NewRecords(runtimeDir), newLocks(runtimeDir), k
	return nil
}

// Close gives the netlink socket back.
func (s *Setup) Close() { s.kernel.Close() }

// Online makes the kernel carry the vif as the specification says: admitted before it is up, routed after. Doing it
// again changes nothing. On an error the vif is closed: nothing of it is left but the device itself.
func (s *Setup) Online(ctx context.Context, spec Spec) error {
	unlock, err := s.locks.vif(ctx, spec.Name)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.notOwn(spec); err != nil {
		return err
	}
	device, err := s.kernel.awaitLink(ctx, spec.Name)
	if err != nil {
		return err
	}
	claim, err := s.claim(ctx, spec, device)
	if err != nil {
		return err
	}
	if err := s.setUp(ctx, spec, device, claim); err != nil {
		return errors.Join(err, s.rollBack(ctx, spec))
	}
	s.runHooks(ctx, "online", spec)
	return nil
}

// rollBack closes a vif that could not be set up, also when the time for that is over.
func (s *Setup) rollBack(ctx context.Context, spec Spec) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	return s.close(ctx, spec.Name, spec.Addresses)
}

// setUp does the work of Online on a vif that has claimed its addresses.
func (s *Setup) setUp(ctx context.Context, spec Spec, device netlink.Link, claim claim) error {
	if spec.hides() {
		known, err := s.records.Read(spec.Name)
		if device, err = s.hide(ctx, spec, device, err == nil && known.same(spec)); err != nil {
			return err
		}
	}
	return s.bring(ctx, spec, device, claim)
}

// bring makes the kernel carry a vif that has claimed its addresses, with the vif's lock held.
func (s *Setup) bring(ctx context.Context, spec Spec, device netlink.Link, claim claim) error {
	mac, err := net.ParseMAC(spec.MAC)
	if err != nil {
		return err
	}
	known, err := s.records.Read(spec.Name)
	done := err == nil && known.same(spec)
	steps := []func() error{
		func() error { return forward(spec) },
		func() error { return writeSettings(spec) },
		func() error { return s.kernel.neighbours(device, claim.fresh, spec.Addresses, mac) },
		func() error { return s.purge(ctx, spec, !done) },
		func() error { return s.kernel.up(device) },
		func() error { return s.kernel.routes(device, claim.fresh, spec.Addresses, spec.Metric) },
		func() error { return s.kernel.addresses(device, claim.fresh, spec.gateways()) },
		// Until the new route stood, somebody's packets to the address may have begun a flow to its former holder.
		func() error { return s.purge(ctx, spec, claim.moved) },
		func() error { return s.Gate.Accelerate(ctx, []string{spec.Name}) },
		func() error { return s.record(done, spec) },
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// record writes down what stands now; a vif that already stood so keeps its time.
func (s *Setup) record(done bool, spec Spec) error {
	if done {
		return nil
	}
	spec.State, spec.Since = netvm.VifUp, time.Now().Round(time.Millisecond)
	return s.records.write(spec)
}

func (s *Setup) purge(ctx context.Context, spec Spec, wanted bool) error {
	if !wanted {
		return nil
	}
	return s.Flows.PurgeAddresses(ctx, spec.Addresses)
}

// claim is how the vif got its addresses.
type claim struct {
	fresh bool // it had none before, so nothing that follows can have been done
	moved bool // one of them belonged to another vif that is still there
}

// claim admits the vif to its addresses. One that another vif has moves to the newer domain: a domain that starts
// again may be there before the old one is gone.
func (s *Setup) claim(ctx context.Context, spec Spec, device netlink.Link) (claim, error) {
	unlock, err := s.locks.addresses(ctx)
	if err != nil {
		return claim{}, err
	}
	defer unlock()
	c, err := s.contest(ctx, spec)
	if err != nil {
		return c, err
	}
	// Somebody may have flushed the rules that tell of an earlier run; that run's device is no fresh one.
	c.fresh = c.fresh && !isVif(device)
	if err := s.ensure(ctx); err != nil {
		return c, err
	}
	return c, s.Gate.Admit(ctx, spec.Name, spec.Addresses)
}

// ensure loads the rules where they are missing.
func (s *Setup) ensure(ctx context.Context) error {
	changes, err := s.Gate.Ensure(ctx, s.Virtual)
	if len(changes) > 0 {
		s.Log.Info("loaded the firewall", "changes", changes)
	}
	return err
}

// contest finds out whether the addresses are free, or held by somebody who must give way.
func (s *Setup) contest(ctx context.Context, spec Spec) (claim, error) {
	c := claim{fresh: true}
	admitted, err := s.Gate.Admitted(ctx)
	if err != nil {
		return c, err
	}
	halves, err := s.Gate.Strays(ctx) // whoever has but half of an address has it all the same
	if err != nil {
		return c, err
	}
	for _, a := range slices.Concat(admitted, halves) {
		if a.Vif == spec.Name {
			c.fresh = false
			continue
		}
		if !slices.Contains(spec.Addresses, a.Addr) {
			continue
		}
		holder, err := s.kernel.link(a.Vif)
		if err != nil {
			return c, fmt.Errorf("%s: %w", a.Vif, err)
		}
		if holder == nil {
			continue
		}
		domID, _, err := ParseName(a.Vif)
		if err != nil || domID >= spec.DomID {
			return c, fmt.Errorf("%s belongs to %s: give each AppVM an address of its own, or detach the other first", a.Addr, a.Vif)
		}
		c.moved = true
		s.Log.Info("address moves to the newer domain", "vif", spec.Name, "from", a.Vif)
	}
	return c, nil
}

// notOwn refuses an address that is the netvm's own.
func (s *Setup) notOwn(spec Spec) error {
	for _, a := range spec.Addresses {
		local, err := s.kernel.isLocal(a)
		if err != nil {
			return err
		}
		if local {
			return fmt.Errorf("%s is the netvm's own address, or the broadcast address of its network: give the AppVM another", a)
		}
	}
	return nil
}

// Offline takes everything back that Online did, whatever of it there is and whether the device is still there or not.
func (s *Setup) Offline(ctx context.Context, name string) error {
	unlock, err := s.locks.vif(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	known, err := s.takeDown(ctx, name)
	if err != nil {
		return err
	}
	known.Name, known.Addresses = name, nil
	s.runHooks(ctx, "offline", known)
	return nil
}

// takeDown closes a vif, with its lock held, and returns what its record said.
func (s *Setup) takeDown(ctx context.Context, name string) (Spec, error) {
	known, err := s.records.Read(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Log.Warn("record cannot be read; going by what the kernel has", "vif", name, "error", err)
	}
	return known, s.close(ctx, name, known.Addresses)
}

// close leaves nothing of a vif but its device, if that is still there, down and in no group. The addresses are those
// that are known beside what the kernel tells.
func (s *Setup) close(ctx context.Context, name string, known []netip.Addr) error {
	device, err := s.kernel.link(name)
	if err != nil {
		return err
	}
	if device != nil {
		if err := s.kernel.clear(device); err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
	}
	if err := s.reveal(name); err != nil {
		return err
	}
	addrs, err := s.release(ctx, name, known)
	if err != nil {
		return err
	}
	if err := s.Flows.PurgeAddresses(ctx, addrs); err != nil {
		return err
	}
	return s.records.remove(name)
}

// release takes the vif's addresses back and returns those that nobody holds now. One that had moved here from a vif
// that is still there goes back to it.
func (s *Setup) release(ctx context.Context, name string, known []netip.Addr) ([]netip.Addr, error) {
	unlock, err := s.locks.addresses(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	admitted, err := s.Gate.Admitted(ctx)
	if err != nil {
		return nil, err
	}
	addrs := slices.Clone(known)
	var heirs []netvm.Admission
	for _, a := range admitted {
		if a.Vif != name {
			// What has moved on to a newer vif is not ours to take, nor are its flows.
			addrs = slices.DeleteFunc(addrs, func(addr netip.Addr) bool { return addr == a.Addr })
			continue
		}
		if !slices.Contains(addrs, a.Addr) {
			addrs = append(addrs, a.Addr)
		}
		heir, err := s.heir(a.Addr)
		if err != nil {
			return nil, err
		}
		if heir != "" {
			heirs = append(heirs, netvm.Admission{Vif: heir, Addr: a.Addr})
		}
	}
	return addrs, s.Gate.Expel(ctx, name, heirs)
}

// heir is the vif that the kernel routes the address to now, if it was brought up with it; "" = there is none.
func (s *Setup) heir(addr netip.Addr) (string, error) {
	index, err := s.kernel.routeTo(addr)
	if err != nil || index == 0 {
		return "", err
	}
	device, err := s.kernel.LinkByIndex(index)
	if err != nil {
		return "", nil // it went meanwhile
	}
	name := device.Attrs().Name
	known, err := s.records.Read(name)
	if err != nil || !slices.Contains(known.Addresses, addr) {
		return "", nil
	}
	return name, nil
}

// same tells whether two specifications ask for the same.
func (s Spec) same(other Spec) bool {
	return s.Name == other.Name && s.MAC == other.MAC && slices.Equal(s.Addresses, other.Addresses) &&
		s.Gateway == other.Gateway && s.Gateway6 == other.Gateway6 && s.Harden == other.Harden &&
		s.Visible == other.Visible && s.VisibleGateway == other.VisibleGateway
}

func (s Spec) hasIPv6() bool {
	return slices.ContainsFunc(s.Addresses, netip.Addr.Is6)
}

// gateways are the netvm's addresses on the vif. A link-local one is left to the AppVM's own table of neighbours: on
// the vif it would be one more address of ours that it can reach.
func (s Spec) gateways() []netip.Addr {
	var out []netip.Addr
	for _, a := range []netip.Addr{s.Gateway, s.Gateway6} {
		if a.IsValid() && !a.IsLinkLocalUnicast() {
			out = append(out, a)
		}
	}
	return out
}
