package parts

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"netvmd/internal/config"
	"netvmd/internal/firewall"
	"netvmd/internal/netvm"
)

// Virtual are the virtual DNS addresses. When the store does not answer, AppVMs must be refused all the same: then they
// are those of the configuration, else Qubes', and that is logged.
func Virtual(ctx context.Context, conf config.Config, log *slog.Logger) []netip.Addr {
	if len(conf.DNS.Virtual) > 0 {
		return conf.DNS.Virtual
	}
	settings, done, err := Settings(ctx, conf)
	if err != nil {
		fallback := conf.DNS.VirtualOr(nil)
		log.Warn("the store does not say the virtual DNS addresses", "going_by", fallback, "error", err)
		return fallback
	}
	defer done()
	return settings.Virtual
}

// Differences says, a sentence each, where the firewall in the kernel is not as it must be for these virtual addresses
// and the vifs that have a record. It changes nothing.
func Differences(ctx context.Context, rules firewall.Backend, conf config.Config, virtual []netip.Addr) ([]string, error) {
	out, err := rules.Faults(ctx)
	if err != nil {
		return nil, err
	}
	targets, err := rules.Targets(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range virtual {
		if !slices.ContainsFunc(targets, func(t netvm.Target) bool { return t.Virtual == v }) {
			out = append(out, fmt.Sprintf("%s is neither led to a resolver nor refused", v))
		}
	}
	admitted, err := rules.Admitted(ctx)
	if err != nil {
		return nil, err
	}
	recorded, err := Admissions(conf)
	for _, a := range recorded {
		if !slices.Contains(admitted, a) {
			out = append(out, fmt.Sprintf("%s may not send from %s, as its record says it must", a.Vif, a.Addr))
		}
	}
	for _, a := range admitted {
		if !slices.Contains(recorded, a) {
			out = append(out, fmt.Sprintf("%s may send from %s, of which no record says so", a.Vif, a.Addr))
		}
	}
	return out, err
}
