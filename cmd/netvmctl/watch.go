package main

import (
	"time"

	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/netvm"
	"netvmd/internal/report"
)

const watchHelp = `Watch prints what is so now and then a line for each change: of the state, the
uplinks, the resolvers and where they come from, the targets of the virtual
addresses, the AppVMs' vifs, the problems, and netvmd itself. It waits through
restarts of netvmd and ends with Ctrl-C.

With --json each line is an object with the keys time, event, subject, from and
to. The event is netvmd, status (the first, with the key status),
networkmanager, state, portal (the address that leads to one), uplink, source,
target, vif or problem; "" in from or to means: not there, or refused. A target
has also apply_time.`

func newWatch(g *globals) *cobra.Command {
	return command("watch", "Print a line for each change", watchHelp, func(cmd *cobra.Command) error {
		var w watch
		for event := range dbus.Watch(cmd.Context()) {
			if cmd.Context().Err() != nil {
				break // what is told at the end is the end of the watch, not netvmd's
			}
			for _, change := range w.see(event, time.Now()) {
				if err := writeChange(cmd, g, change); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

func writeChange(cmd *cobra.Command, g *globals, change report.Change) error {
	if g.json {
		return report.WriteJSON(cmd.OutOrStdout(), change, false)
	}
	return write(cmd, change.Line(screen(cmd)))
}

// watch remembers what was seen last.
type watch struct {
	begun   bool // something was told
	running bool
	known   bool // there is a last status
	last    netvm.Status
}

// see says what is different since the last event.
func (w *watch) see(event dbus.Event, now time.Time) []report.Change {
	var out []report.Change
	switch {
	case !event.Running && (w.running || !w.begun):
		out = append(out, report.Stopped(now))
	case event.Running && !w.running && w.begun:
		out = append(out, report.Started(now))
	}
	w.begun, w.running = true, event.Running
	switch {
	case !event.Running:
		return out
	case w.known:
		out = append(out, report.Changes(w.last, event.Status, now)...)
	default:
		out = append(out, report.Present(event.Status, now))
	}
	w.known, w.last = true, event.Status
	return out
}
