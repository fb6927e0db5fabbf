package vif

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// routesFile is what route(8) of net-tools reads: the main IPv4 table of the calling thread's network namespace.
const routesFile = "/proc/thread-self/net/route"

// routesHead begins the file (Linux, net/ipv4/fib_trie.c, fib_route_seq_show).
const routesHead = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t"

// flagLetters are those that may follow U or ! with route(8), in its order.
var flagLetters = []struct {
	flag   uint64
	letter string
}{
	{unix.RTF_GATEWAY, "G"}, {unix.RTF_HOST, "H"}, {unix.RTF_REINSTATE, "R"}, {unix.RTF_DYNAMIC, "D"},
	{unix.RTF_MODIFIED, "M"}, {unix.RTF_DEFAULT, "d"}, {unix.RTF_ADDRCONF, "A"}, {unix.RTF_CACHE, "C"},
}

// Routes lists the main IPv4 table of the calling thread's network namespace: the rows of `route -n`, in its order. A row
// whose flags begin with "!" refuses: it has no gateway and no references, and route(8) prints "-" for both, as for the
// interface. Metrics above 2147483647 it prints as negative numbers. Of a route with several next hops the kernel shows
// the first.
func Routes() ([]netvm.Route, error) {
	text, err := os.ReadFile(routesFile)
	if err != nil {
		return nil, fmt.Errorf("read the routes: %w", err)
	}
	routes, err := parseRoutes(string(text))
	if err != nil {
		return nil, fmt.Errorf("read the routes: %s: %w", routesFile, err)
	}
	return routes, nil
}

// parseRoutes reads the kernel's text. A line that is none of the kernel's is an error that names it.
func parseRoutes(text string) ([]netvm.Route, error) {
	head, rows, _ := strings.Cut(text, "\n")
	if text != "" && !strings.HasPrefix(head, routesHead) { // it is empty where no device was ever up
		return nil, fmt.Errorf("line 1: %.80q is no head of a table of routes", head)
	}
	var out []netvm.Route
	for i, row := range strings.Split(strings.TrimSuffix(rows, "\n"), "\n") {
		if row == "" {
			continue
		}
		route, up, err := parseRoute(row)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+2, err)
		}
		if up {
			out = append(out, route)
		}
	}
	return out, nil
}

// parseRoute reads one row; up is false for one that route(8) does not show.
func parseRoute(row string) (route netvm.Route, up bool, err error) {
	fields := strings.Split(row, "\t")
	if len(fields) < 8 || fields[0] == "" {
		return route, false, fmt.Errorf("%.80q is no route", row)
	}
	r := rowReader{row: row}
	flags := r.number(fields[3], 16)
	route = netvm.Route{
		Destination: r.address(fields[1]), Gateway: r.address(fields[2]), Genmask: r.address(fields[7]),
		Flags: flagsOf(flags), Ref: r.count(fields[4]), Use: r.count(fields[5]), Metric: r.count(fields[6]),
		// The kernel takes any bytes for a name; D-Bus and JSON do not.
		Interface: strings.ToValidUTF8(fields[0], "?"),
	}
	if flags&unix.RTF_REJECT != 0 {
		route.Interface = "-"
	}
	return route, flags&unix.RTF_UP != 0, r.err
}

// flagsOf writes flags as route(8) does.
func flagsOf(flags uint64) string {
	out := "U"
	if flags&unix.RTF_REJECT != 0 {
		out = "!"
	}
	for _, l := range flagLetters {
		if flags&l.flag != 0 {
			out += l.letter
		}
	}
	return out
}

// rowReader keeps the first error of a row.
type rowReader struct {
	row string
	err error
}

func (r *rowReader) number(text string, base int) uint64 {
	n, err := strconv.ParseUint(text, base, 32)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("%.80q: %w", r.row, err)
	}
	return n
}

// count reads a decimal number. The kernel prints some as signed, so that a large one may look negative.
func (r *rowReader) count(text string) uint32 {
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return uint32(n)
	}
	return uint32(r.number(text, 10))
}

// address reads eight hexadecimal digits: the kernel prints an address that lies in memory in the network's order as if
// it were a number of the machine's.
func (r *rowReader) address(text string) netip.Addr {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 4 {
		if r.err == nil {
			r.err = fmt.Errorf("%.80q: %.16q is no address", r.row, text)
		}
		return netip.Addr{}
	}
	var a [4]byte
	binary.NativeEndian.PutUint32(a[:], binary.BigEndian.Uint32(b))
	return netip.AddrFrom4(a)
}
