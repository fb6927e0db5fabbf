package nmhook

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// The real NetworkManager in namespaces of its own: it sees a fresh network with one veth and writes only into
// the test's folder. /sys read-only means that it does without udev.
const enterNamespaces = `set -e
mount -t sysfs -o ro sysfs /sys
mount -t tmpfs tmpfs /var/lib/NetworkManager
mount --bind "$1/run" /run/NetworkManager
ip link set lo up
ip link show uplink0 >&2 || ip link add uplink0 type veth peer name world0
ip link set world0 up
exec NetworkManager --debug --config "$1/NetworkManager.conf" --config-dir "$1/conf.d" --system-config-dir "$1/conf.d" \
  --intern-config "$1/intern.conf" --state-file "$1/state" --pid-file "$1/pid"
`

const nmConfig = `[main]
plugins=keyfile
dhcp=internal
dns=none
rc-manager=unmanaged
auth-polkit=false
no-auto-default=*
[keyfile]
path=%s/connections
unmanaged-devices=interface-name:world0
[connectivity]
enabled=false
`

const connectionFile = `[connection]
id=lab uplink
uuid=0b5a9d8e-5b0c-4d0e-9d69-5a2f5d1a0001
type=ethernet
interface-name=uplink0
[ipv4]
method=manual
address1=192.0.2.10/24,192.0.2.1
dns=192.0.2.53;198.51.100.53;
[ipv6]
method=manual
address1=2001:db8::10/64,2001:db8::1
dns=2001:db8::53;
`

// realNM is NetworkManager's program, started as often as the test likes in the same namespaces.
type realNM struct {
	folder string
	holder *exec.Cmd // keeps the network namespace
	cmd    *exec.Cmd
}

func prepareNM(t *testing.T) *realNM {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it makes namespaces")
	}
	n := &realNM{folder: t.TempDir()}
	for _, sub := range []string{"run", "conf.d", "connections"} {
		if err := os.Mkdir(filepath.Join(n.folder, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, folder := range []string{"/run/NetworkManager", "/var/lib/NetworkManager"} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(n.folder, "NetworkManager.conf"), fmt.Sprintf(nmConfig, n.folder))
	writeFile(t, filepath.Join(n.folder, "intern.conf"), "")
	profile := filepath.Join(n.folder, "connections", "lab.nmconnection")
	writeFile(t, profile, connectionFile)
	if err := os.Chmod(profile, 0o600); err != nil { // NetworkManager reads no other
		t.Fatal(err)
	}
	n.holder = exec.Command("sleep", "infinity")
	n.holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := n.holder.Start(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = n.holder.Process.Kill(); _ = n.holder.Wait() })
	return n
}

func (n *realNM) start(t *testing.T) {
	t.Helper()
	n.cmd = exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", n.holder.Process.Pid), "--",
		"unshare", "--mount", "--", "sh", "-c", enterNamespaces, "sh", n.folder)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(filepath.Join(n.folder, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	n.cmd.Stdout, n.cmd.Stderr = log, log
	if err := n.cmd.Start(); err != nil {
		t.Fatalf("this test needs nsenter, unshare and NetworkManager: %v", err)
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			out, _ := os.ReadFile(filepath.Join(n.folder, "log"))
			t.Logf("NetworkManager's log ends:\n%s", out[max(0, len(out)-6000):])
		}
	})
}

func (n *realNM) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait() // it was killed
		n.cmd = nil
	}
}

func uplinkIs(servers ...string) func(netvm.View) bool {
	return func(v netvm.View) bool {
		var got []string
		for _, e := range v.NetworkManager.Entries {
			for _, s := range e.Servers {
				got = append(got, s.String())
			}
		}
		return slices.Equal(got, servers)
	}
}

func TestTheRealNetworkManagerIsFollowedThroughChangesAndRestarts(t *testing.T) {
	startBus(t)
	n := prepareNM(t)
	n.start(t)
	w := watch(t)
	w.until("resolvers of the profile", uplinkIs("192.0.2.53", "198.51.100.53", "2001:db8::53"))
	v := w.until("an uplink in whole", func(v netvm.View) bool {
		return len(v.Uplinks) == 1 && len(v.Uplinks[0].Addresses) >= 2 && v.State == netvm.Online
	})
	if up := v.Uplinks[0]; up.ID != "lab uplink" || up.Interface != "uplink0" || up.Type != "802-3-ethernet" || up.Gateway.String() != "192.0.2.1" {
		t.Errorf("uplink %+v", up)
	}

	conn := testConn(t)
	reapplyDNS(t, conn, "203.0.113.1")
	v = w.until("reapplied resolvers", func(v netvm.View) bool { return uplinkIs("203.0.113.1", "2001:db8::53")(v) })
	if v.Arrived.IsZero() || v.Signals == 0 {
		t.Errorf("a change that a signal announced has Arrived %v, Signals %d", v.Arrived, v.Signals)
	}

	n.kill()
	v = w.until("NetworkManager is away", func(v netvm.View) bool { return !v.NetworkManager.Running })
	if !uplinkIs("203.0.113.1", "2001:db8::53")(v) {
		t.Errorf("its last word is forgotten: %+v", v.NetworkManager)
	}
	n.start(t)
	for {
		v = w.next("NetworkManager is back and has taken over its device")
		if len(v.NetworkManager.Entries) == 0 {
			t.Fatalf("the empty configuration of a starting NetworkManager replaced its last word: %+v", v)
		}
		if uplinkIs("192.0.2.53", "198.51.100.53", "2001:db8::53")(v) && v.NetworkManager.Running {
			break
		}
	}
}

// testConn is a connection of the test's own to its bus.
func testConn(t *testing.T) *godbus.Conn {
	t.Helper()
	conn, err := godbus.ConnectSystemBus(godbus.WithSignalHandler(godbus.NewSequentialSignalHandler()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// reapplyDNS does what `nmcli device reapply` does after ipv4.dns was changed.
func reapplyDNS(t testing.TB, conn *godbus.Conn, server string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var device godbus.ObjectPath
	manager := conn.Object(nmName, nmPath)
	if err := manager.CallWithContext(ctx, nmName+".GetDeviceByIpIface", 0, "uplink0").Store(&device); err != nil {
		t.Fatal(err)
	}
	var settings map[string]map[string]godbus.Variant
	var version uint64
	object := conn.Object(nmName, device)
	if err := object.CallWithContext(ctx, nmName+".Device.GetAppliedConnection", 0, uint32(0)).Store(&settings, &version); err != nil {
		t.Fatal(err)
	}
	b := godbus.MakeVariant
	addr := [4]byte{}
	if _, err := fmt.Sscanf(server, "%d.%d.%d.%d", &addr[0], &addr[1], &addr[2], &addr[3]); err != nil {
		t.Fatal(err)
	}
	settings["ipv4"]["dns"] = b([]uint32{uint32(addr[0]) | uint32(addr[1])<<8 | uint32(addr[2])<<16 | uint32(addr[3])<<24})
	delete(settings["ipv4"], "dns-data")
	for _, old := range []string{"addresses", "routes"} { // godbus loses their types; address-data says the same
		delete(settings["ipv4"], old)
		delete(settings["ipv6"], old)
	}
	if err := object.CallWithContext(ctx, nmName+".Device.Reapply", 0, settings, uint64(0), uint32(0)).Err; err != nil {
		t.Fatal(err)
	}
}
