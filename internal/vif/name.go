package vif

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// maxDomID is the highest domain id that Xen gives (DOMID_FIRST_RESERVED is 0x7ff0, so 32751; 32752 is what the hotplug
// scripts of Xen allow, and the metrics of other programs count down from it).
const maxDomID = 32752

// maxDevID bounds the number of a domain's card. The name must fit into 15 characters (IFNAMSIZ - 1) anyway.
const maxDevID = 65535

// namePattern is that of the backend end of a card: vif<domid>.<devid>, in decimal without leading zeros.
var namePattern = regexp.MustCompile(`^vif(0|[1-9][0-9]{0,4})\.(0|[1-9][0-9]{0,4})$`)

// ParseName takes the numbers of the domain and of its card out of the name of a vif, such as "vif4.0".
func ParseName(name string) (domID, devID int, err error) {
	parts := namePattern.FindStringSubmatch(name)
	if parts == nil {
		return 0, 0, fmt.Errorf("%.64q is no name of a vif: vif<domid>.<devid>, such as vif4.0, is wanted", name)
	}
	// The pattern leaves nothing that Atoi could refuse.
	domID, _ = strconv.Atoi(parts[1])
	devID, _ = strconv.Atoi(parts[2])
	if domID > maxDomID || devID > maxDevID {
		return 0, 0, fmt.Errorf("%s: the highest domid is %d, the highest devid %d", name, maxDomID, maxDevID)
	}
	return domID, devID, nil
}

// byAge orders the names of vifs by domain and device: of two domains, the newer has the higher number.
func byAge(a, b string) int {
	domA, devA, errA := ParseName(a)
	domB, devB, errB := ParseName(b)
	if errA != nil || errB != nil {
		return cmp.Compare(a, b)
	}
	return cmp.Or(cmp.Compare(domA, domB), cmp.Compare(devA, devB))
}

// metricOf is the metric of the routes to a domain: of two domains with one address, the newer is preferred, as domids
// grow.
func metricOf(domID int) int { return maxDomID - domID }
