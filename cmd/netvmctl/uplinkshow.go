package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"netvmd/internal/report"
	"netvmd/internal/store"
	"netvmd/internal/uplink"
)

func newUplinkShow(g *globals) *cobra.Command {
	return uplinkCommand("show [IFACE]", "Say what the store says of an interface", uplinkShowHelp, cobra.MaximumNArgs(1),
		func(cmd *cobra.Command, args []string) error {
			setup, from, err := openUplink(cmd, g)
			if err != nil {
				return err
			}
			specs, err := configured(cmd.Context(), from, args)
			if err != nil {
				return err
			}
			var shown []shownUplink
			for _, spec := range specs {
				one, err := look(cmd.Context(), setup, spec)
				if err != nil {
					return err
				}
				shown = append(shown, one)
			}
			if g.json {
				return writeJSON(cmd, map[string]any{"uplinks": shown})
			}
			var b strings.Builder
			for i, one := range shown {
				if i > 0 {
					b.WriteString("\n")
				}
				b.WriteString(report.Table(one.rows()))
			}
			return write(cmd, b.String())
		})
}

// configured reads what the store says of the named interface or, without one, of each that it configures.
func configured(ctx context.Context, from store.Options, names []string) ([]uplink.Spec, error) {
	all := len(names) == 0
	if all {
		var err error
		if names, err = uplink.Interfaces(); err != nil {
			return nil, err
		}
	}
	var specs []uplink.Spec
	failed := fmt.Errorf("%w: there is no network card", store.ErrUnconfigured)
	for _, name := range names {
		spec, err := readSpec(ctx, from, name)
		switch {
		case err == nil:
			specs = append(specs, spec)
		case all && errors.Is(err, store.ErrUnconfigured):
			failed = err
		default:
			return nil, err
		}
	}
	if len(specs) == 0 {
		return nil, failed
	}
	return specs, nil
}

// shownUplink is what show says of one interface; its names are the keys of JSON.
type shownUplink struct {
	Interface    string         `json:"interface"`
	MAC          string         `json:"mac"`
	Keys         string         `json:"keys"`
	Addresses    []netip.Prefix `json:"addresses"`
	Gateway      netip.Addr     `json:"gateway"`
	Gateway6     netip.Addr     `json:"gateway6"`
	Resolvers    []netip.Addr   `json:"resolvers"`
	DefaultRoute bool           `json:"default_route"`
	DNS          bool           `json:"dns"`
	Network      bool           `json:"network"`
	Way          uplink.Way     `json:"way"`
	Missing      []string       `json:"missing"`
}

func look(ctx context.Context, setup *uplink.Setup, spec uplink.Spec) (shownUplink, error) {
	way, err := setup.Way(ctx, spec.Interface)
	if err != nil {
		return shownUplink{}, err
	}
	missing, err := setup.Missing(spec)
	return shownUplink{
		spec.Interface, spec.MAC.String(), spec.Keys, listed(spec.Addresses), spec.Gateway, spec.Gateway6, listed(spec.Resolvers),
		spec.DefaultRoute, spec.DNS, spec.Network, way, listed(missing),
	}, err
}

// rows are the same for a person.
func (u shownUplink) rows() [][]string {
	rows := [][]string{{"Interface", u.Interface + ", " + u.MAC}, {"Settings", u.Keys}}
	for _, a := range u.Addresses {
		rows = append(rows, []string{"Address", a.String()})
	}
	for _, gateway := range []netip.Addr{u.Gateway, u.Gateway6} {
		if gateway.IsValid() {
			rows = append(rows, []string{"Gateway", gateway.String()})
		}
	}
	for _, r := range u.Resolvers {
		rows = append(rows, []string{"Nameserver", r.String()})
	}
	if !u.DNS {
		rows = append(rows, []string{"", "not used: the service disable-dns-server is on"})
	}
	if !u.DefaultRoute {
		rows = append(rows, []string{"Default route", "none: the service disable-default-route is on"})
	}
	if u.Network {
		rows = append(rows, []string{"Link", "an ordinary network, and not a netvm alone"})
	}
	ways := map[uplink.Way]string{
		uplink.NetworkManager: "NetworkManager", uplink.Resolved: "systemd-resolved and the kernel", uplink.ResolvConfFile: "resolv.conf and the kernel",
	}
	rows = append(rows, []string{"Set up by", ways[u.Way]})
	if len(u.Missing) == 0 {
		return append(rows, []string{"Kernel", "has it so"})
	}
	return append(rows, []string{"Kernel", "does not have it so: netvmctl uplink up " + u.Interface})
}
