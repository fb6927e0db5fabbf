package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/internal/report"
)

const vifsHelp = `Vifs lists the AppVMs' network cards, as the netvm has them: a vif is up, or
degraded when something of it is missing in the kernel. Without room for it, the
table leaves the gateway and the routes' metric out.

Keys of --json: vifs, a list of name, domid, addresses, visible_address,
visible_gateway, mac, gateway, gateway6, metric, state and since; with --traffic
also traffic, a list of name, rx_bytes, rx_packets, tx_bytes and tx_packets,
where received is what the AppVM sent.`

func newVifs(g *globals) *cobra.Command {
	var traffic bool
	cmd := command("vifs", "List the AppVMs' network cards", vifsHelp, func(cmd *cobra.Command) error {
		return withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
			status, err := client.Status(ctx)
			if err != nil {
				return err
			}
			if traffic {
				return showTraffic(ctx, cmd, g, client, status.Vifs)
			}
			if g.json {
				return writeJSON(cmd, map[string]any{"vifs": report.JSONOfVifs(status.Vifs)})
			}
			return write(cmd, report.Vifs(screen(cmd), status.Vifs, time.Now()))
		})
	})
	cmd.Flags().BoolVar(&traffic, "traffic", false, "show what the AppVMs sent and received instead")
	return cmd
}

func showTraffic(ctx context.Context, cmd *cobra.Command, g *globals, client *dbus.Client, vifs []netvm.Vif) error {
	_, tally, err := client.Statistics(ctx)
	if err != nil {
		return err
	}
	if g.json {
		return writeJSON(cmd, map[string]any{"vifs": report.JSONOfVifs(vifs), "traffic": report.JSONOfTraffic(tally.Traffic)})
	}
	return write(cmd, report.Traffic(screen(cmd), vifs, tally.Traffic))
}
