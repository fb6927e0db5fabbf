package vif

import (
	"bytes"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/netvm"
)

// addVif makes a device and gives the other end of its cable.
func addVif(t *testing.T, name, peer string) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer}); err != nil {
		t.Fatal(err)
	}
	for _, end := range []string{name, peer} {
		link, err := netlink.LinkByName(end)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// send sends a frame of so many bytes out of a device, of an EtherType for experiments (IEEE 802, 0x88b5).
func send(t *testing.T, name string, size int) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	frame := slices.Concat(bytes.Repeat([]byte{0xff}, 6), link.Attrs().HardwareAddr, []byte{0x88, 0xb5}, make([]byte, size-14))
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
}

func TestTrafficIsCountedAsTheNetvmSeesItByDomainAndDevice(t *testing.T) {
	enterNamespace(t)
	none, err := Traffic()
	if err != nil || len(none) > 0 {
		t.Errorf("without any vif: %v, %v", none, err)
	}
	// Otherwise the kernel's own router solicitations are counted too.
	for _, which := range []string{"default", "all"} {
		if err := writeSetting("ipv6/conf/"+which+"/disable_ipv6", "1"); err != nil {
			t.Fatal(err)
		}
	}
	addVif(t, "vif10.1", "a")
	addVif(t, "vif10.0", "b")
	addVif(t, "vif9.0", "c")
	addVif(t, "vif9.0-nat", "vif9")
	send(t, "a", 100)
	send(t, "a", 60)
	send(t, "vif9.0", 1000)
	send(t, "vif9", 100)
	got, err := Traffic()
	want := []netvm.Traffic{
		{Vif: "vif9.0", TxBytes: 1000, TxPackets: 1},
		{Vif: "vif10.0"},
		{Vif: "vif10.1", RxBytes: 160, RxPackets: 2},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v\nwant %+v", got, err, want)
	}
}
