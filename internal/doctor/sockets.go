package doctor

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// socket is one of this network namespace that strangers can send to.
type socket struct {
	protocol string // udp or tcp
	at       netip.AddrPort
	inode    string // the kernel's number of it
	program  string // who has it, such as "dnsmasq (pid 812)"; "" where that could not be seen
}

func (s socket) String() string {
	return fmt.Sprintf("%s at %s/%s", cmp.Or(s.program, "a program"), s.at, s.protocol)
}

// States of a socket that takes what strangers send (Linux, include/net/tcp_states.h): TCP_LISTEN, and TCP_CLOSE, which
// is that of a UDP socket without a peer.
var openStates = map[string]string{"tcp": "0A", "udp": "07"}

// firstEphemeral is where the kernel begins to give ports to UDP clients, which are not servers (ip_local_port_range).
const firstEphemeral = 32768

// readSockets lists the sockets that are reachable from other machines.
func (m *machine) readSockets() ([]socket, error) {
	var out []socket
	for _, protocol := range []string{"tcp", "udp"} {
		for _, family := range []string{"", "6"} {
			path := "/proc/thread-self/net/" + protocol + family
			text, err := m.read(path)
			if err != nil {
				return nil, err
			}
			found, err := parseSockets(protocol, text)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			out = append(out, found...)
		}
	}
	out = slices.DeleteFunc(out, func(s socket) bool {
		return s.at.Addr().IsLoopback() || s.protocol == "udp" && s.at.Port() >= firstEphemeral
	})
	return out, m.nameOwners(out)
}

// parseSockets reads the kernel's table of sockets (Linux, Documentation/networking/proc_net_tcp.rst).
func parseSockets(protocol, text string) ([]socket, error) {
	var out []socket
	for i, line := range strings.Split(text, "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) == 0 { // the heads of the columns
			continue
		}
		if len(fields) < 10 {
			return nil, fmt.Errorf("line %d: %.80q is no socket", i+1, line)
		}
		at, err := parseEndpoint(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if fields[3] == openStates[protocol] {
			out = append(out, socket{protocol: protocol, at: at, inode: fields[9]})
		}
	}
	return out, nil
}

// parseEndpoint reads "0100007F:0035": the address as 32-bit numbers of the machine's, then the port.
func parseEndpoint(text string) (netip.AddrPort, error) {
	digits, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(digits)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("%.60q is no address and port", text)
	}
	for word := raw; len(word) > 0; word = word[4:] {
		binary.NativeEndian.PutUint32(word, binary.BigEndian.Uint32(word))
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%.60q is no address and port", text)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), nil
}

// nameOwners finds whose the sockets are, as far as the caller may see it.
func (m *machine) nameOwners(sockets []socket) error {
	if len(sockets) == 0 {
		return nil
	}
	links, err := filepath.Glob(m.path("/proc/[0-9]*/fd/*"))
	if err != nil {
		return err
	}
	owners := map[string]string{}
	for _, link := range links {
		// A process that ended meanwhile, or is somebody else's, cannot be seen.
		to, err := os.Readlink(link)
		if inode, is := strings.CutPrefix(to, "socket:["); err == nil && is {
			owners[strings.TrimSuffix(inode, "]")] = filepath.Dir(filepath.Dir(link))
		}
	}
	for i, s := range sockets {
		process := owners[s.inode]
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if process != "" && err == nil {
			sockets[i].program = fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), filepath.Base(process))
		}
	}
	return nil
}

// serverPorts are those of the servers that a netvm must not have: DNS (RFC 1035), DHCP (RFC 2131) and DHCPv6 (RFC 8415).
var serverPorts = map[uint16]string{53: "DNS", 67: "DHCP", 547: "DHCP"}

// servers are those that answer in the netvm's name.
type servers []string

func readServers(_ context.Context, m *machine) (servers, error) {
	sockets, err := m.sockets()
	var out servers
	for _, s := range sockets {
		if service := serverPorts[s.at.Port()]; service == "DNS" || service != "" && s.protocol == "udp" {
			out = append(out, fmt.Sprintf("%s serves %s", s, service))
		}
	}
	return out, err
}

func (s servers) judge() finding {
	if len(s) > 0 {
		return warn(strings.Join(s, "; "), "Have it listen on 127.0.0.1 alone, or stop it")
	}
	return fine("no program serves either beyond this machine")
}

// ports are what else listens, and whether AppVMs reach it.
type ports struct {
	open   []string
	closed bool
}

func readPorts(ctx context.Context, m *machine) (ports, error) {
	b, err := readBase(ctx, m)
	if err != nil {
		return ports{}, err
	}
	sockets, err := m.sockets()
	out := ports{closed: b.closed()}
	for _, s := range sockets {
		out.open = append(out.open, s.String())
	}
	return out, err
}

func (p ports) judge() finding {
	found := strings.Join(p.open, ", ")
	switch {
	case len(p.open) == 0:
		return fine("no program listens beyond this machine")
	case !p.closed:
		return warn("no base firewall keeps AppVMs from "+found, loadRules+", or close them with rules of your own")
	}
	return fine("the base firewall refuses AppVMs what listens: %s", found)
}
