package main

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"

	"netvmd/internal/netvm"
	"netvmd/internal/report"
)

// holdings is what the kernel holds, as JSON shows it.
type holdings struct {
	Backend  string              `json:"backend"`
	Targets  []report.TargetJSON `json:"dns_targets"`
	Admitted []admission         `json:"admitted"`
	Counters []netvm.Counter     `json:"counters"`
}

type admission struct {
	Vif     string     `json:"vif"`
	Address netip.Addr `json:"address"`
}

func show(ctx context.Context, t *table) error {
	h, err := t.holdings(ctx)
	if err != nil {
		return err
	}
	if t.json {
		return writeJSON(t.cmd, h)
	}
	return write(t.cmd, h.text())
}

func (t *table) holdings(ctx context.Context) (holdings, error) {
	h := holdings{Backend: t.Name(), Admitted: []admission{}}
	targets, err := t.Targets(ctx)
	if err != nil {
		return h, err
	}
	h.Targets = report.JSONOfTargets(targets)
	admitted, err := t.Admitted(ctx)
	if err != nil {
		return h, err
	}
	for _, a := range admitted {
		h.Admitted = append(h.Admitted, admission{a.Vif, a.Addr})
	}
	counters, err := t.Counters(ctx)
	h.Counters = listed(counters)
	return h, err
}

// text is what a person reads.
func (h holdings) text() string {
	if len(h.Targets) == 0 {
		return fmt.Sprintf("No rules of netvmd are loaded (%s): run netvmctl firewall load.\n", h.Backend)
	}
	var targets, admitted, counters [][]string
	for _, t := range h.Targets {
		targets = append(targets, []string{t.Virtual, cmp.Or(t.Resolver, "refused at once")})
	}
	for _, a := range h.Admitted {
		admitted = append(admitted, []string{a.Vif, a.Address.String()})
	}
	for _, c := range h.Counters {
		if c.Packets > 0 {
			counters = append(counters, []string{c.Table, c.Name, fmt.Sprint(c.Packets), fmt.Sprint(c.Bytes)})
		}
	}
	return section([]string{"VIRTUAL DNS", "LEADS TO"}, targets) + "\n" +
		section([]string{"VIF", "MAY SEND FROM"}, admitted) + "\n" +
		section([]string{"DROPPED OR REFUSED", "BY", "PACKETS", "BYTES"}, counters)
}

// section is a table, or none.
func section(head []string, rows [][]string) string {
	if len(rows) == 0 {
		rows = [][]string{{"none"}}
	}
	return report.Table(append([][]string{head}, rows...))
}

// listed is never null in JSON.
func listed[T any](list []T) []T { return append([]T{}, list...) }
