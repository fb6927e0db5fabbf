package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/parts"
	"netvmd/internal/words"
)

const unloadHelp = `Unload takes all rules of netvmd out of the kernel, those in the custom chains
too, whatever of them there is. Other rules stay, also what Qubes' own sets know
of the vifs. The limits of ICMP errors become what they were before.

It is for the end: netvmd must not run, as it would load the rules again. While
an AppVM is attached it refuses, as that would be open or cut off, unless the
firewall of Qubes is loaded and takes over. To shut the last AppVM down is
enough.`

// errRuns says why nothing was unloaded.
var errRuns = errors.New("netvmd runs and would load the rules again: stop it first (systemctl stop netvmd), or use --force")

func newUnload(g *globals) *cobra.Command {
	var force bool
	cmd := command("unload", "Take netvmd's rules out of the kernel", unloadHelp, func(cmd *cobra.Command) error {
		changes, err := unload(cmd, g, force)
		if err != nil {
			return err
		}
		if g.json {
			return writeJSON(cmd, map[string]any{"changes": listed(changes)})
		}
		if len(changes) == 0 {
			return write(cmd, "nothing is loaded\n")
		}
		return write(cmd, words.HarmlessLines(strings.Join(changes, "\n"))+"\n")
	})
	cmd.Flags().BoolVar(&force, "force", false, "do it although netvmd runs, or AppVMs are attached")
	return cmd
}

func unload(cmd *cobra.Command, g *globals, force bool) ([]string, error) {
	conf, err := config.Load(g.config)
	if err != nil {
		return nil, err
	}
	if !force {
		if err := mustNotRun(cmd.Context()); err != nil {
			return nil, err
		}
	}
	changes, err := parts.Unload(cmd.Context(), conf, force, logTo(cmd.ErrOrStderr()))
	if errors.Is(err, firewall.ErrNeeded) {
		err = fmt.Errorf("%w: shut them down first, or use --force", err)
	}
	return changes, err
}

// mustNotRun gives an error if netvmd runs, or if that cannot be found out.
func mustNotRun(ctx context.Context) error {
	err := ask(ctx, func(ctx context.Context, client *dbus.Client) error {
		_, err := client.Status(ctx)
		return err
	})
	switch {
	case err == nil:
		return errRuns
	case errors.Is(err, dbus.ErrNotRunning):
		return nil
	}
	return fmt.Errorf("does netvmd run? %w", err)
}
