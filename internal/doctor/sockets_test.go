package doctor

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

const socketsHead = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"

// row is a line of the kernel's table.
func row(at, state string) string {
	a := netip.MustParseAddrPort(at)
	var digits strings.Builder
	for word := a.Addr().AsSlice(); len(word) > 0; word = word[4:] {
		fmt.Fprintf(&digits, "%08X", binary.NativeEndian.Uint32(word))
	}
	return fmt.Sprintf("   0: %s:%04X 00000000:0000 %s 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n", digits.String(), a.Port(), state)
}

func TestSocketsThatStrangersCanSendTo(t *testing.T) {
	m := bare(t)
	m.write("/proc/thread-self/net/tcp", socketsHead+row("10.137.0.1:53", "0A")+row("127.0.0.53:53", "0A")+row("192.0.2.1:22", "01"))
	m.write("/proc/thread-self/net/udp", socketsHead+row("0.0.0.0:67", "07")+row("192.0.2.1:53", "01")+row("0.0.0.0:40000", "07")+row("0.0.0.0:5353", "07"))
	m.write("/proc/thread-self/net/udp6", socketsHead+row("[fd00::1]:53", "07")+row("[::1]:53", "07"))
	m.write("/proc/99/comm", "named\n")
	m.write("/proc/99/fd/.keep", "")
	if err := os.Symlink("socket:[4711]", m.path("/proc/99/fd/5")); err != nil {
		t.Fatal(err)
	}
	got, err := readServers(deadline(t), m.machine)
	want := "named (pid 99) at 10.137.0.1:53/tcp serves DNS; named (pid 99) at 0.0.0.0:67/udp serves DHCP; named (pid 99) at [fd00::1]:53/udp serves DNS"
	if err != nil || strings.Join(got, "; ") != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestRealSocketsAreFoundWithTheirProgram(t *testing.T) {
	listener, err := net.Listen("tcp4", "0.0.0.0:53")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	m := newMachine(deadline(t), Options{})
	sockets, err := m.sockets()
	want := fmt.Sprintf("(pid %d) at 0.0.0.0:53/tcp", os.Getpid())
	if err != nil || len(sockets) != 1 || !strings.Contains(sockets[0].String(), want) {
		t.Errorf("%v, %v; want one that is %q", sockets, err, want)
	}
}

func FuzzSockets(f *testing.F) {
	f.Add(socketsHead + row("0.0.0.0:53", "0A") + row("[fd00::1]:53", "0A"))
	f.Add("x\n0: 00:0000 0 0A 0 0 0 0 0 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		sockets, err := parseSockets("tcp", text)
		if err != nil && (sockets != nil || strings.Contains(err.Error(), "\n")) {
			t.Errorf("%d sockets beside the error %q", len(sockets), err)
		}
		for _, s := range sockets {
			if !s.at.IsValid() || s.inode == "" {
				t.Errorf("%+v", s)
			}
		}
	})
}
