package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"netvmd/internal/netvm"
)

// probeTable is the name under which the rules are rehearsed: what is in our own tables has no part in it.
const probeTable = "netvmd-probe"

// Rehearse implements Backend: nft only checks, so no rule of it is ever in the kernel, which may load modules for it.
func (b *nftBackend) Rehearse(ctx context.Context) (missing []string, flowtables bool, err error) {
	missing, err = b.rehearse(ctx, ownText+baseText)
	if err != nil || len(missing) > 0 {
		return missing, false, err
	}
	short, err := b.rehearse(ctx, ownText+flowtableText)
	return nil, len(short) == 0, err
}

func (b *nftBackend) rehearse(ctx context.Context, text string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.patience)
	defer cancel()
	text = strings.ReplaceAll(text, " "+ownTable+" ", " "+probeTable+" ")
	out, err := runWith(ctx, text, b.program, "--check", "-f", "-")
	if !refused(err) {
		return nil, wrapRehearsal(b.program, err)
	}
	return nftComplaints(out), nil
}

// refused tells a program that ran and failed from one that did not run.
func refused(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit)
}

func wrapRehearsal(program string, err error) error {
	if err != nil {
		return fmt.Errorf("rehearse the rules with %s: %w", program, err)
	}
	return nil
}

// nftComplaints reads what nft says of text that the kernel does not take: "/dev/stdin:1:2-3: Error: words", and below it
// the line at fault.
func nftComplaints(out string) []string {
	lines := strings.Split(out, "\n")
	var complaints []string
	for i, line := range lines {
		_, words, is := strings.Cut(line, "Error: ")
		if !is {
			continue
		}
		if i+1 < len(lines) {
			words = strings.TrimSpace(lines[i+1]) + ": " + words
		}
		complaints = append(complaints, words)
	}
	if len(complaints) == 0 {
		complaints = []string{oneLine(out)}
	}
	return slices.Compact(complaints)
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// Rehearse implements Backend. iptables itself has no flowtables.
func (b *iptBackend) Rehearse(ctx context.Context) (missing []string, flowtables bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	for _, f := range b.families {
		out, err := runWith(ctx, f.sampleText(), f.program+"-restore", "--test", "--noflush")
		if err != nil && !refused(err) {
			return nil, false, wrapRehearsal(f.program+"-restore", err)
		}
		// A missing module is but a warning, and then follows who could not do without it.
		for _, line := range strings.Split(out, "\n") {
			if line != "" && (err != nil || strings.Contains(line, "missing kernel module")) {
				missing = append(missing, f.program+"-restore: "+line)
			}
		}
	}
	return missing, false, nil
}

// sampleText has every kind of rule that we write, for iptables-restore.
func (f *iptFamily) sampleText() string {
	virtual, resolver := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2") // RFC 5737, for documentation
	if !f.v4 {
		virtual, resolver = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2") // RFC 3849
	}
	leads := table{virtual: {resolver: resolver, zone: 1}, resolver: {refused: true}}
	chains := slices.Concat(
		f.spoofChains([]netvm.Admission{{Vif: "vif0.0", Addr: resolver}}, nil),
		[]staticChain{{dnsChains.table, dnsChains.a, renderNAT(leads)}, {zoneChains.table, zoneChains.a, renderZones(leads)}},
		f.static(true),
	)
	for _, c := range customChains {
		chains = append(chains, staticChain{c.table, c.name, nil})
	}
	var text strings.Builder
	for _, table := range []string{"raw", "filter", "nat"} {
		var rules strings.Builder
		fmt.Fprintf(&text, "*%s\n", table)
		for _, c := range chains {
			if c.table != table {
				continue
			}
			fmt.Fprintf(&text, ":%s - [0:0]\n", c.name)
			for _, rule := range c.rules {
				fmt.Fprintf(&rules, "-A %s %s\n", c.name, rule)
			}
		}
		text.WriteString(rules.String() + "COMMIT\n")
	}
	return text.String()
}
