package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"netvmd/internal/doctor"
	"netvmd/internal/netvm"
	"netvmd/internal/report"
	"netvmd/internal/words"
)

const reportHelp = `Report prints all that somebody wants to know who looks into a problem: the
versions, the status, where AppVM DNS goes, the vifs, the routing table, the
statistics, what the doctor finds, and what the firewall holds. Run it as root:
others see less. It changes nothing and takes 20 seconds at most; a part that
cannot be had says why, and the rest is there, also when netvmd does not run.

A report has addresses and names of networks in it: read it before you post it.
With --redact placeholders stand for public addresses, MACs and the names of
networks, the same for the same thing. That is done as well as they can be
recognized, so read it all the same.

Keys of --json: sections, a list of title, text and error.`

func newReport(g *globals) *cobra.Command {
	var redacted bool
	cmd := command("report", "Print all that a bug report needs", reportHelp, func(cmd *cobra.Command) error {
		sections := gather(cmd, g).sections(redacted, time.Now())
		if g.json {
			return writeJSON(cmd, map[string]any{"sections": sections})
		}
		return write(cmd, written(sections, redacted, time.Now()))
	})
	cmd.Flags().BoolVar(&redacted, "redact", false, "put placeholders for public addresses, MACs and names of networks")
	return cmd
}

// part is one section of a report.
type part struct {
	Title string `json:"title"`
	Text  string `json:"text"`
	Error string `json:"error"` // why there is no text
}

// worded is a fact as a part of a report.
func worded[T any](title string, f fact[T], words func(T) string) part {
	if f.err != nil {
		_, why := explain(&cobra.Command{}, failure{f.err})
		return part{Title: title, Error: why}
	}
	return part{Title: title, Text: words(f.value)}
}

// sections puts the facts into words.
func (f facts) sections(redacted bool, now time.Time) []part {
	r := report.NewRedactor(f.status.value)
	if redacted {
		f.status.value, f.checks.value = r.Status(f.status.value), r.Checks(f.checks.value)
	}
	var screen report.Screen // a text to be sent has no colours, and the usual width
	parts := []part{
		{Title: "Versions", Text: f.versions()},
		worded("Status", f.status, func(s netvm.Status) string { return report.Status(screen, s, now) }),
		worded("AppVM DNS", f.status, func(s netvm.Status) string { return report.DNS(screen, s, now) }),
		worded("vifs", f.status, func(s netvm.Status) string { return report.Vifs(screen, s.Vifs, now) }),
		worded("Routes", f.routes, report.Routes),
		worded("Statistics", f.statistics, func(c counted) string { return report.Statistics(screen, c.Statistics, c.tally) }),
		worded("Doctor", f.checks, func(results []doctor.Result) string { return report.Checks(screen, results) }),
		worded("Firewall", f.rules, holdings.text),
	}
	if redacted {
		for i := range parts {
			parts[i].Text, parts[i].Error = r.Text(parts[i].Text), r.Text(parts[i].Error)
		}
	}
	return parts
}

// versions are those of all that matters.
func (f facts) versions() string {
	or := func(text string, err error) string {
		if err != nil {
			_, text = explain(&cobra.Command{}, failure{err})
		}
		return text
	}
	who := "root"
	if uid := os.Geteuid(); uid != 0 {
		who = fmt.Sprintf("user %d: root sees more", uid)
	}
	return report.Table([][]string{
		{"netvmctl", version}, {"netvmd", or(f.status.value.Version, f.status.err)},
		{"NetworkManager", or(f.networkManager.value, f.networkManager.err)},
		{"kernel", or(kernel())}, {"system", or(system())}, {"seen by", who},
	})
}

// written is a report as text.
func written(parts []part, redacted bool, now time.Time) string {
	warning := "It has addresses and names of networks in it: read it before you post it."
	if redacted {
		warning = "Placeholders stand for public addresses, MACs and names of networks that were recognized: read it before you post it."
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Report of netvmctl, %s. %s\n", now.UTC().Format("2006-01-02 15:04:05 MST"), warning)
	for _, p := range parts {
		text := p.Text
		if p.Error != "" {
			text = "not to be had: " + words.HarmlessLines(p.Error) + "\n"
		}
		fmt.Fprintf(&b, "\n== %s ==\n%s", p.Title, text)
	}
	return b.String()
}
