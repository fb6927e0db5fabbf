package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"netvmd/internal/lab"
)

// terminal writes for a reader: with colour only where there is somebody to see it.
type terminal struct {
	w      io.Writer
	colour bool
	live   bool // a person reads along
}

func newTerminal(f *os.File) terminal {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	live := err == nil
	_, noColour := os.LookupEnv("NO_COLOR") // no-color.org
	return terminal{w: f, live: live, colour: live && !noColour && os.Getenv("TERM") != "dumb"}
}

// SGR sequences of ECMA-48.
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (t terminal) paint(sgr, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (t terminal) printf(format string, args ...any) {
	// A reader who has gone away is told by SIGPIPE; there is nobody to tell of other failures.
	_, _ = fmt.Fprintf(t.w, format, args...)
}

func (t terminal) mark(ok bool) string {
	if ok {
		return t.paint(green, "✓")
	}
	return t.paint(red, "✗")
}

// field prints a label and what belongs to it, wrapped to 80 columns.
func (t terminal) field(label, text string) {
	const indent, width = 17, 80 - 17
	for _, line := range wrap(text, width) {
		t.printf("   %s%s\n", t.paint(dim, fmt.Sprintf("%-*s", indent-3, label)), line)
		label = ""
	}
}

// wrap breaks text at spaces, and keeps its line breaks.
func wrap(text string, width int) []string {
	var lines []string
	for _, paragraph := range strings.Split(text, "\n") {
		line := ""
		for _, word := range strings.Fields(paragraph) {
			if line != "" && len([]rune(line))+1+len([]rune(word)) > width {
				lines = append(lines, line)
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += word
		}
		lines = append(lines, line)
	}
	return lines
}

// routes prints a routing table as route(8) does with -n.
func (t terminal) routes(title string, routes []lab.Route) {
	t.printf("\n   %s\n", t.paint(bold, title))
	table := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "   Destination\tGateway\tGenmask\tFlags\tMetric\tRef\tUse\tIface")
	for _, r := range routes {
		gateway := r.Gateway
		if !gateway.IsValid() {
			gateway = netip.IPv4Unspecified()
		}
		fmt.Fprintf(table, "   %s\t%s\t%s\t%s\t%d\t0\t0\t%s\n", r.Destination.Addr(), gateway, genmask(r.Destination.Bits()),
			r.Flags(), r.Metric, r.Interface)
	}
	_ = table.Flush() // as for printf
}

func genmask(bits int) string {
	mask := ^uint32(0) << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}).String()
}

// ms prints a duration in milliseconds with the digits that matter.
func ms(d time.Duration) string {
	v := float64(d) / float64(time.Millisecond)
	digits := 2
	if v >= 10 || v <= -10 {
		digits = 0
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " ms"
}
