package main

import (
	"slices"

	"github.com/spf13/cobra"

	"netvmd/internal/doctor"
	"netvmd/internal/report"
)

const doctorHelp = `Doctor checks what a netvm needs (the kernel, its rules and settings, the
programs around netvmd, and netvmd itself) and says how to mend what it finds.
It changes nothing, works without netvmd, and exits 1 if a check failed. Some
checks need root.

In dom0 it checks instead whether the netvm is isolated and dom0 off the
network: the IOMMU, network cards and interfaces that dom0 has, and what
qvm-dom0-network-via-netvm may have left. In a domain that a netvm serves, and
in which netvmctl alone is installed, it checks the interface that leads there.

Keys of --json: checks, a list of id, title, state, found and remedy, where
state is ok, warning, failed or unknown.`

func newDoctor(g *globals) *cobra.Command {
	return command("doctor", "Check what a netvm needs, and say how to mend it", doctorHelp, func(cmd *cobra.Command) error {
		results := doctor.Run(cmd.Context(), doctor.Options{Config: g.config, Version: version})
		if err := writeChecks(cmd, g, results); err != nil {
			return err
		}
		if slices.ContainsFunc(results, func(r doctor.Result) bool { return r.State == doctor.Failed }) {
			return errSaid
		}
		return nil
	})
}

func writeChecks(cmd *cobra.Command, g *globals, results []doctor.Result) error {
	if g.json {
		return writeJSON(cmd, map[string]any{"checks": listed(results)})
	}
	return write(cmd, report.Checks(screen(cmd), results))
}
