package report

import (
	"fmt"
	"strings"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

// Routes is what `route -n` of net-tools prints, to the byte: its columns are as wide as there, metrics are signed, and a
// route that refuses ("!") has neither gateway nor references.
func Routes(routes []netvm.Route) string {
	var b strings.Builder
	b.WriteString("Kernel IP routing table\n" +
		"Destination     Gateway         Genmask         Flags Metric Ref    Use Iface\n")
	for _, r := range routes {
		gateway, references := r.Gateway.String(), fmt.Sprint(r.Ref)
		if strings.HasPrefix(r.Flags, "!") {
			gateway, references = "-", "-"
		}
		fmt.Fprintf(&b, "%-15s %-15s %-15s %-5s %-6d %-2s %7d %s\n",
			r.Destination, gateway, r.Genmask, r.Flags, int32(r.Metric), references, r.Use, words.Harmless(r.Interface))
	}
	return b.String()
}
