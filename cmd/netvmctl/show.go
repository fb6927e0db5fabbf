package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"netvmd/internal/netvm"
)

// holdings is what the kernel holds, as JSON shows it.
type holdings struct {
	Backend  string          `json:"backend"`
	Targets  []target        `json:"dns_targets"`
	Admitted []admission     `json:"admitted"`
	Counters []netvm.Counter `json:"counters"`
}

type target struct {
	Virtual  netip.Addr `json:"virtual"`
	Resolver netip.Addr `json:"resolver"` // "" = refused
}

type admission struct {
	Vif     string     `json:"vif"`
	Address netip.Addr `json:"address"`
}

func show(ctx context.Context, _ *cobra.Command, t *table) error {
	h, err := t.holdings(ctx)
	if err != nil {
		return err
	}
	if t.json {
		return printJSON(t.out, h)
	}
	return printed(io.WriteString(t.out, h.text()))
}

func (t *table) holdings(ctx context.Context) (holdings, error) {
	h := holdings{Backend: t.Name(), Targets: []target{}, Admitted: []admission{}}
	targets, err := t.Targets(ctx)
	if err != nil {
		return h, err
	}
	for _, to := range targets {
		h.Targets = append(h.Targets, target{to.Virtual, to.Resolver.Addr})
	}
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
	var targets, admitted, counters []string
	for _, t := range h.Targets {
		to := "refused at once"
		if t.Resolver.IsValid() {
			to = t.Resolver.String()
		}
		targets = append(targets, t.Virtual.String()+"\t"+to)
	}
	for _, a := range h.Admitted {
		admitted = append(admitted, a.Vif+"\t"+a.Address.String())
	}
	for _, c := range h.Counters {
		if c.Packets > 0 {
			counters = append(counters, fmt.Sprintf("%s\t%s\t%d\t%d", c.Table, c.Name, c.Packets, c.Bytes))
		}
	}
	return section("VIRTUAL DNS\tLEADS TO", targets) + "\n" + section("VIF\tMAY SEND FROM", admitted) + "\n" +
		section("DROPPED OR REFUSED\tBY\tPACKETS\tBYTES", counters)
}

// section aligns lines of columns with tabs between under their head.
func section(head string, lines []string) string {
	if len(lines) == 0 {
		lines = []string{"none"}
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	// A strings.Builder never fails, and so neither does what writes to it.
	_, _ = fmt.Fprintln(w, strings.Join(append([]string{head}, lines...), "\n"))
	_ = w.Flush()
	return b.String()
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return printed(0, e.Encode(v))
}

// printed makes a failure of what went wrong while printing.
func printed(_ int, err error) error {
	if err != nil {
		return failure{fmt.Errorf("print: %w", err)}
	}
	return nil
}

// listed is never null in JSON.
func listed[T any](list []T) []T { return append([]T{}, list...) }
