package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"netvmd/internal/netvm"
)

// checkAdmission says what is wrong with an admission: the name must be that of one device, which rules out
// iptables' "+" for any that begins so, and the address that of one host.
func checkAdmission(a netvm.Admission) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	const longest = 15 // IFNAMSIZ - 1
	switch {
	case a.Vif == "" || len(a.Vif) > longest || strings.Trim(a.Vif, letters) != "" || a.Vif[0] == '-':
		return fmt.Errorf("%q is no name of a vif", a.Vif)
	case !a.Addr.IsGlobalUnicast() || a.Addr.Is4In6() || a.Addr.Zone() != "":
		return fmt.Errorf("%s: %q is no address of an AppVM", a.Vif, a.Addr)
	}
	return nil
}

// checkAdmissions says what is wrong with who is given what: an address belongs to one vif at a time.
func checkAdmissions(given []netvm.Admission) error {
	owner := map[netip.Addr]string{}
	for _, a := range given {
		if err := checkAdmission(a); err != nil {
			return err
		}
		if other := owner[a.Addr]; other != "" && other != a.Vif {
			return fmt.Errorf("%s is given to both %s and %s", a.Addr, other, a.Vif)
		}
		owner[a.Addr] = a.Vif
	}
	return nil
}

// readmit takes from the vif all that it has, and gives these, each address taken from whoever has it.
func readmit(is []netvm.Admission, vif string, given []netvm.Admission) []netvm.Admission {
	is = slices.DeleteFunc(is, func(a netvm.Admission) bool {
		return a.Vif == vif || slices.ContainsFunc(given, func(g netvm.Admission) bool { return g.Addr == a.Addr })
	})
	return ordered(append(is, given...))
}

func ordered(list []netvm.Admission) []netvm.Admission {
	slices.SortFunc(list, compareAdmissions)
	return slices.Compact(list)
}

func compareAdmissions(a, b netvm.Admission) int {
	return cmp.Or(strings.Compare(a.Vif, b.Vif), a.Addr.Compare(b.Addr))
}
