package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"netvmd/internal/config"
	"netvmd/internal/dom0"
	"netvmd/internal/parts"
	"netvmd/internal/report"
	"netvmd/internal/store"
	"netvmd/internal/uplink"
	"netvmd/internal/words"
)

const (
	uplinkHelp = `In a domain that a netvm serves, an AppVM or a chained netvm, these commands set
up the interface that leads there, eth0, from what the toolstack says: QubesDB
or else XenStore. They work without netvmd, and not in dom0, which has
qvm-dom0-network-via-netvm.`

	uplinkUpHelp = `Up gives the interface its address, one default route on the link, permanent
neighbours (the gateway and the nameservers) and link group 1, sets it up, and
tells the machine its nameservers. It says what it changed, a line each; again,
it changes nothing, and mends what others changed.

There are three ways, by what runs:
 - NetworkManager, if it manages the interface: it gets a connection, in memory
   alone, and has the rest;
 - systemd-resolved: it is told the nameservers, and the kernel the rest;
 - else they are written into dns.resolv_conf. A file that is protected (listed
   below /etc/qubes/protected-files.d, immutable, or a mount of its own) is left
   alone.

With QubesDB, /net-config/MAC/ip, netmask, gateway, ip6, netmask6, gateway6 and
custom count first, MAC being the interface's in lower case. Where they make it
an ordinary network (custom is set, or a netmask leaves room for others), the
address has its netmask, and neighbours are asked for. Else, if /qubes-mac is
the interface's: /qubes-ip, /qubes-gateway, /qubes-ip6, /qubes-gateway6. The
nameservers are /qubes-primary-dns, or the gateway, and /qubes-secondary-dns.
In XenStore that is device/vif/0/mac, qubes_ip, qubes_gateway, which is the
first nameserver too, and qubes_secondary_dns. A missing MAC is fine where there
is one card. What is missing or makes no sense is said, and nothing is changed.

The Qubes services disable-default-route and disable-dns-server leave out the
default route, so that the gateway and the nameservers alone are reached, and
the nameservers.

After a change hooks.ip_change_hook is run, without arguments and with INTERFACE
in its environment, and qubes_ip_change_hook beside it; one that takes longer
than 10 s is ended.

With --follow it stays, and does the same again whenever the store says
something else, NetworkManager or systemd-resolved come, go or start again, or
the interface comes back. It tells systemd when it is ready. Its end leaves
everything as it is, and netvmctl uplink down ends it.

Keys of --json: way (networkmanager, resolved or resolv.conf), changes and
notes, which are lists of sentences; with --follow an object for each time.`

	uplinkDownHelp = `Down sets the interface down first, so that nothing goes out any more, and then
reverts what up did: addresses, routes, neighbours, the link group,
NetworkManager's connection, what systemd-resolved knows, and resolv.conf, which
becomes what it was unless somebody else has written it since. It needs neither
the store nor the interface, and works also after an up that was killed.

Keys of --json: changes, a list of sentences.`

	uplinkShowHelp = `Show says what the store says about an interface, or about each that it
configures, in which way up would set it up, and whether the kernel has it so.
It changes nothing. It exits 0 if the store configures the interface, and 1,
with the reason, if not.

Keys of --json: uplinks, a list of interface, mac, keys (where that stands),
addresses, gateway, gateway6, resolvers, default_route, dns, network, way and
missing, a list of what up would change in the kernel.`
)

// oldIPChangeHook is the older name of hooks.ip_change_hook, beside it.
const oldIPChangeHook = "qubes_ip_change_hook"

var errDom0 = errors.New("this is dom0: use qvm-dom0-network-via-netvm")

func newUplink(g *globals) *cobra.Command {
	group := &cobra.Command{
		Use: "uplink", Short: "Set up the interface that leads to a netvm", Long: uplinkHelp, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return errors.New("up, down or show is wanted") },
	}
	group.AddCommand(newUplinkUp(g), newUplinkDown(g), newUplinkShow(g))
	return group
}

// uplinkCommand makes a command of an interface.
func uplinkCommand(use, short, long string, args cobra.PositionalArgs, do func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: args, ValidArgsFunction: interfaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			is, err := dom0.IsDom0("")
			switch {
			case err != nil:
				return failure{fmt.Errorf("is this dom0? %w", err)}
			case is:
				return failure{errDom0}
			}
			if err := do(cmd, args); err != nil {
				return failure{err}
			}
			return nil
		},
	}
}

// interfaces completes the name of an interface.
func interfaces(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	names, err := uplink.Interfaces()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func newUplinkUp(g *globals) *cobra.Command {
	var follow bool
	cmd := uplinkCommand("up IFACE", "Set an interface up as the store says", uplinkUpHelp, cobra.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			setup, from, err := openUplink(cmd, g)
			if err != nil {
				return err
			}
			spec, err := readSpec(cmd.Context(), from, args[0])
			if err != nil {
				return err
			}
			result, err := setup.Up(cmd.Context(), spec)
			if err := errors.Join(err, tellResult(cmd, g, result, !follow)); err != nil || !follow {
				return err
			}
			return followUplink(cmd, g, setup, from, spec)
		})
	cmd.Flags().BoolVar(&follow, "follow", false, "stay, and follow what changes")
	return cmd
}

// followUplink stays until the command is ended.
func followUplink(cmd *cobra.Command, g *globals, setup *uplink.Setup, from store.Options, spec uplink.Spec) error {
	// Without a NOTIFY_SOCKET, SdNotify does nothing.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS=Following "+spec.Keys); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	err := setup.Follow(ctx, from, spec, func(result uplink.Result) {
		if err := tellResult(cmd, g, result, false); err != nil {
			cancel(err) // nobody would know what it does
		}
	})
	if errors.Is(err, uplink.ErrReverted) { // as somebody wanted it
		fmt.Fprintln(cmd.ErrOrStderr(), words.Harmless(err.Error())+": it is not followed any more")
		return nil
	}
	if err == nil && cmd.Context().Err() == nil {
		return context.Cause(ctx)
	}
	return err
}

// tellResult prints what was done; indent says that it is the only JSON.
func tellResult(cmd *cobra.Command, g *globals, result uplink.Result, indent bool) error {
	if g.json {
		result.Changes, result.Notes = listed(result.Changes), listed(result.Notes)
		if err := report.WriteJSON(cmd.OutOrStdout(), result, indent); err != nil {
			return fmt.Errorf("print: %w", err)
		}
		return nil
	}
	lines := append(listed(result.Changes), result.Notes...)
	if len(result.Changes) == 0 {
		lines = append(lines, "nothing to change")
	}
	return writeLines(cmd, lines)
}

func writeLines(cmd *cobra.Command, lines []string) error {
	return write(cmd, words.HarmlessLines(strings.Join(lines, "\n"))+"\n")
}

func newUplinkDown(g *globals) *cobra.Command {
	return uplinkCommand("down IFACE", "Revert what up did", uplinkDownHelp, cobra.ExactArgs(1),
		func(cmd *cobra.Command, args []string) error {
			setup, _, err := openUplink(cmd, g)
			if err != nil {
				return err
			}
			changes, err := setup.Down(cmd.Context(), args[0])
			if g.json {
				return errors.Join(err, writeJSON(cmd, map[string]any{"changes": listed(changes)}))
			}
			if len(changes) == 0 && err == nil {
				changes = []string{"nothing to change"}
			}
			if len(changes) == 0 {
				return err
			}
			return errors.Join(err, writeLines(cmd, changes))
		})
}

// openUplink opens what the configuration says.
func openUplink(cmd *cobra.Command, g *globals) (*uplink.Setup, store.Options, error) {
	conf, err := config.Load(g.config)
	if err != nil {
		return nil, store.Options{}, err
	}
	setup := uplink.New(conf.RuntimeDir, conf.DNS.ResolvConf, logTo(cmd.ErrOrStderr()))
	hook := conf.Hooks.IPChangeHook
	setup.Hooks = []string{hook, filepath.Join(filepath.Dir(hook), oldIPChangeHook)}
	return setup, parts.StoreOptions(conf), nil
}

// readSpec reads what the store says of an interface.
func readSpec(ctx context.Context, from store.Options, name string) (uplink.Spec, error) {
	s, err := store.Open(ctx, from)
	if err != nil {
		return uplink.Spec{}, err
	}
	defer func() { _ = s.Close() }() // nothing was written to it
	return uplink.ReadSpec(ctx, s, name)
}
