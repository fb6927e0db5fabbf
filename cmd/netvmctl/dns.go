package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/internal/report"
)

const (
	dnsHelp = `DNS shows where the AppVMs' DNS goes: which resolver each virtual address leads
to, where the resolvers come from and why, which were announced and are not
used, and the overrides, the one in force first.

Keys of --json: dns_source, dns_reason, dns_servers, dns_dropped, dns_overrides,
dns_targets, dns_changed_at, dns_apply_time. In dns_targets the resolver ""
means that queries are refused.`
	refreshHelp = `Refresh has netvmd read every source again and bring the kernel to what they
say, and tells whether anything had to be changed. netvmd does that by itself:
this is for when you do not believe it.

Keys of --json: changed, and those of dns.`
	setHelp = `Set has the AppVMs' DNS go to these servers, in this order, instead of the
uplink's: IPv4 virtual addresses to IPv4 servers, IPv6 to IPv6.

The override lasts as long as this command runs, so that it ends with what it is
for; Ctrl-C ends it. To systemd it says when it is in force (Type=notify). With
--persistent the command returns, and the override outlives restarts until
"netvmctl dns clear". Of several overrides the newest is in force; when it ends,
the one before is again.

Keys of --json: servers, on a line of its own each time that the override comes
into force; with --persistent changed, and those of dns.`
	setExample = `  netvmctl dns set 10.8.0.1
  systemd-run --unit=vpn-dns -p Type=notify netvmctl dns set 10.8.0.1
  netvmctl dns set --persistent 9.9.9.9 149.112.112.112 2620:fe::fe`
	clearHelp = `Clear takes the persistent override back and says what is in force then. An
override that a running program holds ends with that program.

Keys of --json: changed, and those of dns.`
)

func newDNS(g *globals) *cobra.Command {
	dns := statusCommand(g, "dns", "Show where AppVM DNS goes; refresh or override it", dnsHelp,
		func(cmd *cobra.Command, s netvm.Status) string { return report.DNS(screen(cmd), s, time.Now()) },
		func(s netvm.Status) any { return report.JSONOfDNS(s) })
	dns.AddCommand(newRefresh(g), newSet(g), newClear(g))
	return dns
}

func newRefresh(g *globals) *cobra.Command {
	cmd := command("refresh", "Have every source read again", refreshHelp, func(cmd *cobra.Command) error {
		return withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
			changed, err := client.Refresh(ctx)
			if err != nil {
				return err
			}
			said := "Nothing had to be changed."
			if changed {
				said = "The kernel was brought to what the sources say."
			}
			return showForce(ctx, cmd, g, client, changed, said)
		})
	})
	return needing(dbus.ActionRefresh, cmd)
}

func newClear(g *globals) *cobra.Command {
	cmd := command("clear", "Take the persistent override back", clearHelp, func(cmd *cobra.Command) error {
		return withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
			before, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if err := client.ClearDNSOverride(ctx); err != nil {
				return err
			}
			cleared := slices.ContainsFunc(before.DNSOverrides, func(o netvm.Override) bool { return o.Persistent })
			said := "There was no persistent override."
			if cleared {
				said = "The persistent override is taken back."
			}
			return showForce(ctx, cmd, g, client, cleared, said)
		})
	})
	return needing(dbus.ActionOverride, cmd)
}

// showForce says what came of a command and what is in force now.
func showForce(ctx context.Context, cmd *cobra.Command, g *globals, client *dbus.Client, changed bool, said string) error {
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	if g.json {
		return writeJSON(cmd, report.OutcomeJSON{Changed: changed, DNSJSON: report.JSONOfDNS(status)})
	}
	return write(cmd, said+"\n"+report.Targets(screen(cmd), status))
}

func newSet(g *globals) *cobra.Command {
	var persistent bool
	cmd := command("set ADDRESS...", "Have AppVM DNS go to other servers", setHelp, nil)
	cmd.Example, cmd.Args = setExample, someAddresses
	cmd.Flags().BoolVar(&persistent, "persistent", false, "return at once; the override lasts until it is cleared")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		servers, err := addresses(args)
		if err != nil {
			return err
		}
		return work(func(cmd *cobra.Command) error {
			if persistent {
				return setPersistent(cmd, g, servers)
			}
			return hold(cmd, g, servers)
		})(cmd, nil)
	}
	return needing(dbus.ActionOverride, cmd)
}

func someAddresses(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("the address of a DNS server is wanted")
	}
	_, err := addresses(args)
	return err
}

func addresses(args []string) ([]netip.Addr, error) {
	out := make([]netip.Addr, len(args))
	for i, arg := range args {
		addr, err := netip.ParseAddr(arg)
		if err != nil {
			return nil, fmt.Errorf("%q is not an IP address", arg)
		}
		out[i] = addr
	}
	return out, nil
}

func setPersistent(cmd *cobra.Command, g *globals, servers []netip.Addr) error {
	return withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
		if err := client.SetDNSOverride(ctx, servers, true); err != nil {
			return err
		}
		return showForce(ctx, cmd, g, client, true, "AppVM DNS is overridden until netvmctl dns clear.")
	})
}

// hold keeps the override in force until the command is ended, over restarts of netvmd; at the beginning it must be there.
func hold(cmd *cobra.Command, g *globals, servers []netip.Addr) error {
	err := withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
		_, err := client.Status(ctx)
		return err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	err = dbus.HoldDNSOverride(ctx, servers, func() {
		if err := announce(cmd, g, servers); err != nil {
			cancel(err) // nobody would know that it is in force
		}
	})
	if err == nil && cmd.Context().Err() == nil {
		return context.Cause(ctx)
	}
	return err
}

// announce says, to people and to systemd, that the override is in force.
func announce(cmd *cobra.Command, g *globals, servers []netip.Addr) error {
	words := make([]string, len(servers))
	for i, s := range servers {
		words[i] = s.String()
	}
	said := "AppVM DNS goes to " + strings.Join(words, ", ")
	var err error
	if g.json {
		err = report.WriteJSON(cmd.OutOrStdout(), map[string]any{"servers": words}, false)
	} else {
		err = write(cmd, said+" until this ends (Ctrl-C).\n")
	}
	// Without a NOTIFY_SOCKET, SdNotify does nothing.
	_, notified := daemon.SdNotify(false, daemon.SdNotifyReady+"\nSTATUS="+said)
	return errors.Join(err, notified)
}
