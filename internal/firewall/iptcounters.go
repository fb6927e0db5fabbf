package firewall

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"netvmd/internal/netvm"
)

// countedChains are those of our chains that drop or refuse.
var countedChains = []string{chainSpoof, chainAllowed, chainDNSInput, chainDNSForward, chainBaseInput, chainBaseForward}

// Counters implements Backend: they are the counters of our rules that drop or refuse.
func (b *iptBackend) Counters(ctx context.Context) ([]netvm.Counter, error) {
	var out []netvm.Counter
	for _, f := range b.families {
		text, err := runProgram(ctx, f.program+"-save", "--counters")
		if err != nil {
			return nil, fmt.Errorf("iptables: read the counters: %w", err)
		}
		family := "ip"
		if !f.v4 {
			family = "ip6"
		}
		out = append(out, parseCounters(family, text)...)
	}
	return out, nil
}

// parseCounters reads the lines of iptables-save --counters that are about rules of ours that drop or refuse, such as
// "[3:180] -A QBS-ALLOWED -j DROP".
func parseCounters(family, text string) []netvm.Counter {
	var out []netvm.Counter
	table := ""
	for _, line := range strings.Split(text, "\n") {
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = family + " " + name
			continue
		}
		numbers, rule, ok := strings.Cut(line, " -A ")
		chain, what, _ := strings.Cut(rule, " ")
		refuses := strings.Contains(what, drop) || strings.Contains(what, "-j REJECT")
		if !ok || !refuses || !slices.Contains(countedChains, chain) {
			continue
		}
		c := netvm.Counter{Table: table, Name: rule}
		if _, err := fmt.Sscanf(numbers, "[%d:%d]", &c.Packets, &c.Bytes); err == nil {
			out = append(out, c)
		}
	}
	return out
}
