package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/internal/report"
	"netvmd/internal/vif"
)

const (
	statusHelp = `Status answers in one look: is the netvm online, through what, where does AppVM
DNS go and why, which AppVMs are connected, what is wrong and how is it mended?

Keys of --json: version, state, network_manager_running, portal_url, uplinks,
dns_source, dns_reason, dns_servers, dns_dropped, dns_overrides, dns_targets,
dns_changed_at, dns_apply_time, backend, vifs, problems. In dns_targets the
resolver "" means that queries are refused.`
	routesHelp = `Routes prints the kernel's main IPv4 routing table, just as "route -n" does. It
asks the kernel itself and needs no netvmd, so that it works in an AppVM too.

Keys of --json: routes, a list of destination, gateway, genmask, flags, metric,
ref, use and iface.`
	statisticsHelp = `Statistics prints what netvmd counted since it started, how long changes of the
targets took from the signal to the kernel, and what the kernel counted since
the rules were loaded and the devices made.

Keys of --json: applies, coalesced, restored; latency_count, latency_p50,
latency_p90, latency_p99, latency_max; packets that were stopped: spoofed,
unserved, input_rejected, forward_rejected; counters, of every rule; vifs, with
rx_bytes, rx_packets, tx_bytes and tx_packets, where received is what the AppVM
sent.`
)

func newStatus(g *globals) *cobra.Command {
	return statusCommand(g, "status", "Show the netvm in one look", statusHelp,
		func(cmd *cobra.Command, s netvm.Status) string { return report.Status(screen(cmd), s, time.Now()) },
		func(s netvm.Status) any { return report.JSON(s) })
}

func newRoutes(g *globals) *cobra.Command {
	return command("routes", "Print the routing table, as route -n does", routesHelp, func(cmd *cobra.Command) error {
		routes, err := vif.Routes()
		if err != nil {
			return err
		}
		if g.json {
			return writeJSON(cmd, map[string]any{"routes": report.JSONOfRoutes(routes)})
		}
		return write(cmd, report.Routes(routes))
	})
}

func newStatistics(g *globals) *cobra.Command {
	return command("statistics", "Show what was counted and how long changes took", statisticsHelp, func(cmd *cobra.Command) error {
		return withClient(cmd, func(ctx context.Context, client *dbus.Client) error {
			statistics, tally, err := client.Statistics(ctx)
			if err != nil {
				return err
			}
			if g.json {
				return writeJSON(cmd, report.JSONOfStatistics(statistics, tally))
			}
			return write(cmd, report.Statistics(screen(cmd), statistics, tally))
		})
	})
}
