package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// checkAdmission finds what no set and no rule could hold.
func checkAdmission(vif string, addrs []netip.Addr) error {
	if vif == "" || len(vif) >= unix.IFNAMSIZ || strings.ContainsAny(vif, " \t\n/\x00") {
		return fmt.Errorf("%q is no name of a network device", vif)
	}
	for _, a := range addrs {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
			return fmt.Errorf("%s: %q is no plain address", vif, a)
		}
	}
	return nil
}

// admit gives the vif exactly these addresses, and takes them from others.
func admit(is []netvm.Admission, vif string, addrs []netip.Addr) []netvm.Admission {
	is = slices.DeleteFunc(is, func(a netvm.Admission) bool { return a.Vif == vif || slices.Contains(addrs, a.Addr) })
	for _, addr := range addrs {
		is = append(is, netvm.Admission{Vif: vif, Addr: addr})
	}
	return ordered(is)
}

// expel takes from the vif all that it has, and gives the heirs theirs.
func expel(is []netvm.Admission, vif string, heirs []netvm.Admission) []netvm.Admission {
	is = slices.DeleteFunc(is, func(a netvm.Admission) bool { return a.Vif == vif })
	return ordered(append(is, heirs...))
}

func ordered(list []netvm.Admission) []netvm.Admission {
	slices.SortFunc(list, compareAdmissions)
	return slices.Compact(list)
}

func compareAdmissions(a, b netvm.Admission) int {
	return cmp.Or(strings.Compare(a.Vif, b.Vif), a.Addr.Compare(b.Addr))
}
