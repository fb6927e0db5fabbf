package uplink

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"netvmd/internal/rtnetlink"
)

const (
	// sysClassNet is where the kernel shows each device; xenDriver is the one of a Xen domain's cards (xen-netfront.c).
	sysClassNet = "/sys/class/net"
	xenDriver   = "vif"
	// vifGroup is the link group of the netvm's ends of AppVMs' cards: those are no uplinks.
	vifGroup = 2
	// etherLength is how long an Ethernet MAC is, in bytes.
	etherLength = 6
)

// card is a network card of this machine.
type card struct {
	name string
	mac  net.HardwareAddr
	xen  bool // Xen gave it
}

// listCards lists the Ethernet cards. What is made on top of others (bridges, VLANs, …) and may share their MAC is left out.
func listCards() ([]card, error) {
	links, err := rtnetlink.Whole(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var cards []card
	for _, l := range links {
		a := l.Attrs()
		made := l.Type() != "device" && l.Type() != "veth" // veth is the card of a container
		if made || a.Flags&net.FlagLoopback != 0 || a.Group == vifGroup || len(a.HardwareAddr) != etherLength {
			continue
		}
		cards = append(cards, card{a.Name, a.HardwareAddr, isXen(a.Name)})
	}
	return cards, nil
}

// isXen tells whether Xen's driver has the device.
func isXen(name string) bool {
	driver, err := os.Readlink(filepath.Join(sysClassNet, name, "device/driver"))
	return err == nil && filepath.Base(driver) == xenDriver
}

// findCard finds a card that no other can be taken for.
func findCard(cards []card, name string) (card, error) {
	i := slices.IndexFunc(cards, func(c card) bool { return c.name == name })
	if i < 0 {
		there := "none"
		if len(cards) > 0 {
			there = strings.Join(namesOf(cards), ", ")
		}
		return card{}, fmt.Errorf("%s: there is no such network card; there are: %s", name, there)
	}
	for _, c := range cards {
		if c.name != name && slices.Equal(c.mac, cards[i].mac) {
			return card{}, fmt.Errorf("%s and %s have the same MAC, %s: which of them the store means cannot be told", name, c.name, c.mac)
		}
	}
	return cards[i], nil
}

// candidates are the cards that the store may mean when it names no MAC: Xen's, where there are any.
func candidates(cards []card) []card {
	if xen := slices.DeleteFunc(slices.Clone(cards), func(c card) bool { return !c.xen }); len(xen) > 0 {
		return xen
	}
	return cards
}

func namesOf(cards []card) []string {
	names := make([]string, len(cards))
	for i, c := range cards {
		names[i] = c.name
	}
	return names
}

// Interfaces are the names of this machine's network cards.
func Interfaces() ([]string, error) {
	cards, err := listCards()
	return namesOf(cards), err
}
