package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"netvmd/internal/lab"
)

const spoofAbout = `netvm-lab spoof sends packets from a network device as if each SOURCE had sent them:
a ping, DNS, a DHCP server's answer, TCP's first segment and a reset, and the claim
that the sender is at SOURCE (ARP or NDP).

Usage: netvm-lab spoof --device DEVICE --to ADDRESS SOURCE...`

// Ports that firewalls look at.
const (
	dnsPort        = 53
	dhcpServerPort = 67
	dhcpClientPort = 68
	httpPort       = 80
	anyPort        = 40000
)

// disguise is what `netvm-lab spoof` is told.
type disguise struct {
	device  string
	to      netip.Addr
	gateway net.HardwareAddr
	sources []netip.Addr
}

// spoof is `netvm-lab spoof`.
func spoof(ctx context.Context, args []string) error {
	d, err := parseDisguise(args)
	if err != nil {
		return err
	}
	device, err := net.InterfaceByName(d.device)
	if err != nil {
		return fmt.Errorf("spoof: %s: %w", d.device, err)
	}
	for _, source := range d.sources {
		frames := d.frames(device.HardwareAddr, source)
		if err := lab.Send(ctx, d.device, frames...); err != nil {
			return fmt.Errorf("spoof %s: %w", source, err)
		}
		fmt.Fprintf(os.Stdout, "%s: sent %d frames to %s\n", source, len(frames), d.to)
	}
	return nil
}

// parseDisguise reads the command line.
func parseDisguise(args []string) (disguise, error) {
	var d disguise
	flags := flag.NewFlagSet("netvm-lab spoof", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&d.device, "device", "eth0", "the network `device` to send from")
	flags.TextVar(&d.to, "to", netip.Addr{}, "where the packets go: an `address`")
	mac := flags.String("gateway", "fe:ff:ff:ff:ff:ff", "the Ethernet `address` of the next hop; that of a vif's backend end")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stdout, "%s\n\nFlags:\n", spoofAbout)
		flags.SetOutput(os.Stdout)
		flags.PrintDefaults()
		return d, err
	}
	if err == nil {
		d.gateway, err = net.ParseMAC(*mac)
	}
	for _, arg := range flags.Args() {
		source, sourceErr := netip.ParseAddr(arg)
		if sourceErr == nil && d.to.IsValid() && source.Is4() != d.to.Is4() {
			sourceErr = fmt.Errorf("%s and %s are not of one family", source, d.to)
		}
		err = errors.Join(err, sourceErr)
		d.sources = append(d.sources, source)
	}
	if err == nil && (!d.to.IsValid() || len(d.sources) == 0) {
		err = errors.New("--to and a SOURCE are needed")
	}
	if err != nil {
		return d, fmt.Errorf("spoof: %w; %w", err, errUsage)
	}
	return d, nil
}

// frames builds all that is sent as if from source, by the card with the Ethernet address own.
func (d disguise) frames(own net.HardwareAddr, source netip.Addr) []lab.Frame {
	var frames []lab.Frame
	for _, body := range []lab.Body{
		lab.Echo{ID: 1},
		lab.UDP{FromPort: anyPort, ToPort: dnsPort},
		lab.UDP{FromPort: dhcpServerPort, ToPort: dhcpClientPort},
		lab.TCP{FromPort: anyPort, ToPort: httpPort, Sequence: 1, Flags: lab.TCPSyn},
		lab.TCP{FromPort: anyPort, ToPort: httpPort, Sequence: 2, Flags: lab.TCPRst},
	} {
		frames = append(frames, lab.Packet{FromMAC: own, ToMAC: d.gateway, From: source, To: d.to, Body: body})
	}
	if source.Is4() {
		return append(frames, lab.ARP{FromMAC: own, ToMAC: lab.Broadcast, Answer: true, SenderMAC: own, Sender: source,
			TargetMAC: d.gateway, Target: source})
	}
	return append(frames, lab.Packet{FromMAC: own, ToMAC: d.gateway, From: source, To: d.to,
		Body: lab.Advertisement{Target: source, MAC: own}})
}
