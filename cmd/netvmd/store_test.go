package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"netvmd/internal/lab"
	"netvmd/internal/netvm"
)

// openWithQubesDB opens a lab whose netvmd has its settings from a QubesDB with these keys.
func openWithQubesDB(t *testing.T, keys map[string]string) (*scene, *lab.QubesDB) {
	t.Helper()
	s := open(t, lab.Options{Virtual: []netip.Addr{}, QubesDB: keys})
	return s, s.NetVM.QubesDB
}

// awaitVirtual waits until the virtual addresses, in order, lead to the resolvers.
func (s *scene) awaitVirtual(virtual []netip.Addr, resolvers ...netip.Addr) {
	s.t.Helper()
	_, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool {
		return slices.EqualFunc(r.DNSTargets, virtual, func(t netvm.Target, v netip.Addr) bool { return t.Virtual == v }) &&
			slices.EqualFunc(r.DNSTargets, resolvers, func(t netvm.Target, a netip.Addr) bool { return t.Resolver.Addr == a })
	})
	s.must(err)
}

// awaitProblem waits for one problem that contains the words; without words, for none.
func (s *scene) awaitProblem(words ...string) {
	s.t.Helper()
	_, err := s.NetVM.Await(s.ctx, func(r netvm.Status) bool {
		if len(words) == 0 || len(r.Problems) != 1 {
			return len(words) == len(r.Problems)
		}
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(r.Problems[0], w) })
	})
	s.must(err)
}

const primaryDNS, secondaryDNS = "/qubes-netvm-primary-dns", "/qubes-netvm-secondary-dns"

func TestVirtualAddressesFollowTheStore(t *testing.T) {
	first, second := lab.Virtual4[0], lab.Virtual4[1]
	s, q := openWithQubesDB(t, map[string]string{primaryDNS: second.String(), secondaryDNS: first.String()})
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.awaitVirtual([]netip.Addr{second, first}, h[0], h[1])
	s.reaches(h[1], h[0])

	q.Set(secondaryDNS, "10.139.1.0/24") // garbage: what was good before stays
	s.awaitProblem(secondaryDNS, `"10.139.1.0/24" is a network`)
	s.reaches(h[1], h[0])

	q.Delete(secondaryDNS)
	q.Set(primaryDNS, first.String())
	s.awaitVirtual([]netip.Addr{first}, h[0])
	s.awaitProblem()
	s.reaches(h[0])

	s.must(s.NetVM.StopQubesDB())
	s.awaitProblem("the store cannot be followed")
	s.reaches(h[0])
	s.must(s.NetVM.StartQubesDB())
	q = s.NetVM.QubesDB
	q.Set(primaryDNS, first.String())
	q.Set(secondaryDNS, second.String())
	s.awaitVirtual(lab.Virtual4, h[0], h[1])
	s.awaitProblem()
	s.reaches(h[0], h[1])

	// The configuration wins, as soon as it is read.
	s.configure(func(text string) string {
		return strings.Replace(text, "virtual = []", fmt.Sprintf("virtual = [%q]", second), 1)
	})
	s.must(s.NetVM.Netvmd().Signal(syscall.SIGHUP))
	s.awaitVirtual([]netip.Addr{second}, h[0])
}

func TestNothingIsDecidedAboutVirtualAddressesThatAreNotThisNetvms(t *testing.T) {
	only := netip.MustParseAddr("10.139.9.9")
	s, _ := openWithQubesDB(t, map[string]string{primaryDNS: only.String()})
	s.start()
	s.awaitVirtual([]netip.Addr{only}, none)
	log, err := lab.Logs()
	s.must(err)
	if strings.Contains(log["netvmd"], "virtual="+lab.Virtual4[0].String()) {
		t.Errorf("the default virtual addresses were thought of:\n%s", log["netvmd"])
	}
}

func TestBehindAnotherNetvmVirtualAddressesPassThrough(t *testing.T) {
	s, q := openWithQubesDB(t, map[string]string{})
	s.start()
	s.nmcli("connection", "up", "vpn")
	s.must(s.NetVM.SetResolvers(s.ctx, s.VPN.Device, lab.Virtual4...))
	s.awaitVirtual(lab.Virtual4, none, none)
	q.Set("/qubes-ip", "10.137.0.7")
	s.awaitVirtual(lab.Virtual4, lab.Virtual4...)
	q.Delete("/qubes-ip")
	s.awaitVirtual(lab.Virtual4, none, none)
}

func TestAStoreThatIsNotThereIsAProblemAndTheNetvmWorks(t *testing.T) {
	s, _ := openWithQubesDB(t, map[string]string{})
	s.must(s.NetVM.StopQubesDB())
	h := s.Home.Resolvers
	s.start()
	s.nmcli("connection", "up", "home")
	s.leads(h[0], h[1])
	s.awaitProblem("the store cannot be followed", "no such file")
}
