package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/parts"
	"netvmd/internal/words"
)

const (
	loadHelp = `Load brings the kernel to netvmd's rules, with nftables in one transaction. What
there is of targets and admitted vifs stays; without any, DNS is refused and
vifs are admitted by their records. Loading again changes nothing.

No vif comes up without these rules: after a load that failed AppVMs have no
network, rather than no firewall.`
	checkHelp = `Check compares the kernel with netvmd's rules, with the virtual DNS addresses
and with the records of the vifs. It changes nothing, and exits 1 if anything
differs.`
	showHelp = `Show prints what the kernel holds: the targets of the virtual DNS addresses, the
admitted vifs, and the counters of what was dropped and refused since the rules
were loaded. Counters that stand at 0 are in --json only.`
)

func newFirewall(g *globals) *cobra.Command {
	group := &cobra.Command{
		Use:   "firewall",
		Short: "Load the firewall, check it, show what it does",
		Long: `The firewall closes the netvm to AppVMs, lets each AppVM send from its own
addresses alone, and leads DNS to the uplink's resolvers. These commands work
with and without netvmd.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errors.New("load, check, show or unload is wanted") },
	}
	for _, c := range []struct {
		name, short, long string
		do                func(context.Context, *table) error
	}{
		{"load", "Load the rules where they are missing or damaged", loadHelp, load},
		{"check", "Say what differs from how it must be", checkHelp, check},
		{"show", "Show where DNS is led, who may send from where, and what was dropped", showHelp, show},
	} {
		group.AddCommand(command(c.name, c.short, c.long, func(cmd *cobra.Command) error {
			t, err := openTable(cmd, g)
			if err != nil {
				return err
			}
			return c.do(cmd.Context(), t)
		}))
	}
	group.AddCommand(newUnload(g))
	return group
}

// table is the firewall that the configuration asks for, and how to print.
type table struct {
	firewall.Backend
	conf config.Config
	log  *slog.Logger
	cmd  *cobra.Command // that prints
	json bool
}

func openTable(cmd *cobra.Command, g *globals) (*table, error) {
	conf, err := config.Load(g.config)
	if err != nil {
		return nil, err
	}
	log := logTo(cmd.ErrOrStderr())
	backend, err := parts.Firewall(cmd.Context(), conf, log)
	return &table{backend, conf, log, cmd, g.json}, err
}

func load(ctx context.Context, t *table) error {
	changes, err := t.Ensure(ctx, parts.Virtual(ctx, t.conf, t.log))
	if err != nil {
		return err
	}
	if t.json {
		return writeJSON(t.cmd, map[string]any{"backend": t.Name(), "changes": listed(changes)})
	}
	if len(changes) == 0 {
		return write(t.cmd, fmt.Sprintf("already loaded (%s)\n", t.Name()))
	}
	return t.printLines(changes)
}

func check(ctx context.Context, t *table) error {
	differences, err := parts.Differences(ctx, t.Backend, t.conf, parts.Virtual(ctx, t.conf, t.log))
	if err != nil {
		return err
	}
	switch {
	case t.json:
		err = writeJSON(t.cmd, map[string]any{"backend": t.Name(), "differences": listed(differences)})
	case len(differences) == 0:
		err = write(t.cmd, fmt.Sprintf("as it must be (%s)\n", t.Name()))
	default:
		err = t.printLines(differences)
	}
	if err == nil && len(differences) > 0 {
		return errSaid
	}
	return err
}

// printLines prints one sentence a line.
func (t *table) printLines(lines []string) error {
	var b strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&b, "%s: %s\n", t.Name(), words.Harmless(line))
	}
	return write(t.cmd, b.String())
}
