package main

import (
	"context"
	_ "embed" // the script
	"fmt"
	"os/exec"
	"text/tabwriter"
	"time"

	"netvmd/internal/lab"
)

// uplinkRounds is how often an uplink is set up and reverted.
const uplinkRounds = 100

// uplinkScript takes the steps of netvmctl uplink, one process of a plain tool after the other.
//
//go:embed uplinkscript.sh
var uplinkScript string

// uplinks measures how long netvmctl takes to set up a served domain's interface and to revert that, without a bus: so the
// nameservers go into resolv.conf. No netvm is asked, so the backend does not count.
func (c *common) uplinks(ctx context.Context, out terminal) (err error) {
	l, err := lab.New(ctx, lab.Options{Bare: true})
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := l.Close(); err == nil {
			err = closeErr
		}
	}()
	domain := l.Work
	if err := domain.StartQubesDB(); err != nil {
		return err
	}
	keys := domain.Served()
	for key, value := range keys {
		domain.QubesDB.Set(key, value)
	}
	if err := l.NetVM.AddCard(domain.Card); err != nil {
		return err
	}
	if _, err := domain.Run(ctx, "ip", "link", "set", "eth0", "down"); err != nil {
		return err
	}
	out.printf("%s\n", out.paint(bold, "netvmctl uplink, process start included"))
	return measureUplinks(ctx, out, domain, map[string]func(string) *exec.Cmd{
		"netvmctl uplink": func(what string) *exec.Cmd {
			return domain.Command(ctx, c.beside("netvmctl"), "--config", domain.NetvmdConfig(), "uplink", what, "eth0")
		},
		"script": func(what string) *exec.Cmd {
			return domain.Command(ctx, "sh", "-ec", uplinkScript, "uplink-script", what, keys["/qubes-ip"], keys["/qubes-gateway"],
				keys["/qubes-ip6"], keys["/qubes-gateway6"], keys["/qubes-primary-dns"], keys["/qubes-secondary-dns"])
		},
	})
}

// measureUplinks has each set the interface up and revert it, in turn.
func measureUplinks(ctx context.Context, out terminal, domain *lab.AppVM, by map[string]func(string) *exec.Cmd) error {
	times := map[string][]time.Duration{}
	for range uplinkRounds {
		for who, command := range by {
			for _, what := range []string{"up", "down"} {
				began := time.Now()
				if _, err := domain.RunCommand(command(what)); err != nil {
					return fmt.Errorf("uplinks: %s %s: %w", who, what, err)
				}
				times[who+" "+what] = append(times[who+" "+what], time.Since(began))
				if ctx.Err() != nil {
					return ctx.Err()
				}
			}
		}
	}
	table := tabwriter.NewWriter(out.w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "   %d times\tmedian\tp99\tslowest\t\n", uplinkRounds)
	medians := map[string]time.Duration{}
	for _, what := range []string{"netvmctl uplink up", "netvmctl uplink down", "script up", "script down"} {
		medians[what] = quantileRow(table, what, times[what])
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, what := range []string{"up", "down"} {
		out.printf("   %s: the script, of ip, sysctl and cp, takes %.1f times as long\n", what,
			float64(medians["script "+what])/float64(medians["netvmctl uplink "+what]))
	}
	return nil
}
