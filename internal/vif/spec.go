package vif

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"netvmd/internal/netvm"
)

// Nodes reads what the toolstack wrote about a vif: always XenStore.
type Nodes interface {
	// Read gives a node's value. A node that is not there is an error that ReadSpec's caller names.
	Read(ctx context.Context, path string) (string, error)
}

// Settings are what the netvm's configuration and its store say about all vifs.
type Settings struct {
	Gateway  netip.Addr   // the zero Addr = there is none, so no AppVM can have IPv4
	Gateway6 netip.Addr   // the zero Addr = IPv6 is off
	Virtual  []netip.Addr // virtual DNS addresses, which no AppVM may have
	Harden   bool         // strict sysctls
	// Mapping tells under which address and gateway the AppVM of that address sees itself, if they are others.
	Mapping func(ctx context.Context, addr netip.Addr) (visible, gateway netip.Addr, hidden bool, err error)
}

// Spec is how a vif must be: all of it checked, nothing of it done yet.
type Spec struct {
	netvm.Vif
	Type   string `json:"type"` // XenStore's, "" where it says nothing; for the hooks
	Harden bool   `json:"harden"`
}

// maxAddresses bounds how many addresses one vif may have.
const maxAddresses = 16

// maxType is how long a vif's type may be; it is but a word for the hooks.
const maxType = 64

// ReadSpec reads what the toolstack says about the vif of that name below the path, which is XENBUS_PATH, and checks it
// against the settings. The error names the node and its value. missing tells which of Nodes' errors is that of a node
// that is not there.
func ReadSpec(ctx context.Context, name, path string, nodes Nodes, missing error, settings Settings) (Spec, error) {
	domID, devID, err := ParseName(name)
	if err != nil {
		return Spec{}, err
	}
	if err := checkPath(path, domID, devID); err != nil {
		return Spec{}, err
	}
	s := Spec{Vif: netvm.Vif{Name: name, DomID: domID, Metric: metricOf(domID)}, Harden: settings.Harden}
	values := map[string]string{}
	for _, key := range []string{"ip", "mac", "type"} {
		value, err := nodes.Read(ctx, path+"/"+key)
		if err != nil && !errors.Is(err, missing) {
			return Spec{}, fmt.Errorf("%s/%s: %w", path, key, err)
		}
		values[key] = value
	}
	if s.Addresses, err = parseAddresses(values["ip"], settings); err != nil {
		return Spec{}, fmt.Errorf("%s/ip: %w", path, err)
	}
	if s.MAC, err = parseMAC(values["mac"]); err != nil {
		return Spec{}, fmt.Errorf("%s/mac: %w", path, err)
	}
	if s.Type = values["type"]; len(s.Type) > maxType || strings.ContainsAny(s.Type, "\x00\n") {
		return Spec{}, fmt.Errorf("%s/type: %.64q is no type of a card", path, s.Type)
	}
	return s, s.complete(ctx, settings)
}

// complete adds the gateways, and the mapping of the first IPv4 address.
func (s *Spec) complete(ctx context.Context, settings Settings) error {
	for _, a := range s.Addresses {
		if !a.Is4() {
			s.Gateway6 = settings.Gateway6
			continue
		}
		if s.Gateway.IsValid() {
			continue
		}
		if !settings.Gateway.IsValid() {
			return errors.New("no gateway for IPv4: set vif.gateway in netvmd.toml, or the netvm's own settings in the store")
		}
		s.Gateway = settings.Gateway
		if settings.Mapping == nil {
			continue
		}
		visible, gateway, hidden, err := settings.Mapping(ctx, a)
		if err != nil {
			return err
		}
		if !hidden || visible == a {
			continue
		}
		if !gateway.IsValid() {
			return fmt.Errorf("%s is to be hidden behind %s, and the store names no gateway for that (visible-gateway)", a, visible)
		}
		s.Visible, s.VisibleGateway = visible, gateway
	}
	return nil
}

// nodePath is that of a vif's nodes, absolute or relative to the own domain.
var nodePath = regexp.MustCompile(`^(?:/local/domain/[0-9]{1,5}/)?backend/vif/([0-9]{1,5})/([0-9]{1,5})$`)

// IsNodePath tells whether a path can be that of a vif's nodes.
func IsNodePath(path string) bool { return nodePath.MatchString(path) }

// checkPath wants the path of that vif.
func checkPath(path string, domID, devID int) error {
	if path == "" {
		return errors.New("XENBUS_PATH is not set: this program is run by the Xen toolstack")
	}
	parts := nodePath.FindStringSubmatch(path)
	if parts == nil || parts[1] != strconv.Itoa(domID) || parts[2] != strconv.Itoa(devID) {
		return fmt.Errorf("XENBUS_PATH: %.128q does not lead to backend/vif/%d/%d", path, domID, devID)
	}
	return nil
}

// parseAddresses reads a list with spaces between. Without IPv6, addresses of that family are left out.
func parseAddresses(text string, settings Settings) ([]netip.Addr, error) {
	words := strings.Fields(text)
	switch {
	case len(words) == 0:
		return nil, errors.New("no address: the AppVM's vif needs ip=ADDRESS in its configuration")
	case len(words) > maxAddresses:
		return nil, fmt.Errorf("%d addresses, of at most %d", len(words), maxAddresses)
	}
	var out []netip.Addr
	for _, word := range words {
		addr, err := parseAddress(word, settings)
		if err != nil {
			return nil, err
		}
		if slices.Contains(out, addr) {
			return nil, fmt.Errorf("%s stands there twice", addr)
		}
		if addr.Is4() || settings.Gateway6.IsValid() {
			out = append(out, addr)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%.64q is IPv6 alone, which is off: set vif.gateway6 in netvmd.toml, or the netvm's own settings in the store", text)
	}
	return out, nil
}

// parseAddress takes a plain unicast address that is nobody else's by definition.
func parseAddress(word string, settings Settings) (netip.Addr, error) {
	addr, err := netip.ParseAddr(word)
	reason := ""
	switch {
	case strings.Contains(word, "/"):
		reason = "a network, and an address is wanted"
	case err != nil || addr.Zone() != "" || addr.Is4In6():
		reason = "no plain IPv4 or IPv6 address"
	case addr.IsUnspecified():
		reason = "the unspecified address"
	case addr.IsLoopback():
		reason = "a loopback address"
	case addr.IsMulticast():
		reason = "a multicast address"
	case addr.IsLinkLocalUnicast():
		reason = "a link-local address"
	case addr.Is4() && (addr.As4()[0] == 0 || addr.As4()[0] >= 240):
		reason = "in a range that is reserved (0.0.0.0/8 and 240.0.0.0/4)"
	case addr == settings.Gateway || addr == settings.Gateway6:
		reason = "the gateway's address"
	case slices.Contains(settings.Virtual, addr):
		reason = "a virtual DNS address"
	}
	if reason != "" {
		return netip.Addr{}, fmt.Errorf("%.64q is %s: give the AppVM an address of its own", word, reason)
	}
	return addr, nil
}

// backendMAC is what Xen gives to the netvm's end of every vif; it sorts last, so that bridges do not take it.
var backendMAC = net.HardwareAddr{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff}

// parseMAC wants the Ethernet address of one card.
func parseMAC(text string) (string, error) {
	if text == "" {
		return "", errors.New("no Ethernet address: the AppVM's vif needs mac=ADDRESS in its configuration")
	}
	mac, err := net.ParseMAC(text)
	switch {
	case err != nil || len(mac) != 6:
		return "", fmt.Errorf("%.64q is no Ethernet address, such as 00:16:3e:5e:6c:00", text)
	case mac[0]&1 != 0:
		return "", fmt.Errorf("%s is a multicast address, and that of one card is wanted", mac)
	case slices.Equal(mac, make(net.HardwareAddr, 6)), slices.Equal(mac, backendMAC):
		return "", fmt.Errorf("%s is no address of an AppVM's card", mac)
	}
	return mac.String(), nil
}
