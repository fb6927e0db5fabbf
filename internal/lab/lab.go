// Package lab builds a whole netvm on any Linux box, in namespaces: networks with real dnsmasq, a netvm with
// a real D-Bus daemon, NetworkManager and netvmd of its own, and AppVMs that ask DNS. The end-to-end tests,
// the benchmark and netvm-lab share it. Nothing of it is visible outside, and nothing is left behind: see
// Enter, which a program calls before anything else here.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
)

// Backend names what writes the kernel's rules.
type Backend string

// The backends. The legacy one is iptables over the kernel's older interface, for machines that have it.
const (
	NFTables       Backend = "nftables"
	IPTablesNFT    Backend = "iptables-nft"
	IPTablesLegacy Backend = "iptables-legacy"
)

// Options of a lab. The zero value is a lab with nftables and without netvmd.
type Options struct {
	Netvmd   string       // path of the netvmd binary; "" = StartNetvmd cannot be called
	VifRoute string       // path of the vif-route-netvm binary; "" = AppVMs are not attached
	Backend  Backend      // "" = NFTables
	Virtual  []netip.Addr // the virtual DNS addresses that netvmd is told of; nil = the two IPv4 ones, empty = none
	LogLevel string       // of netvmd; "" = debug
	// QubesDB is what stands in QubesDB, from where netvmd has the netvm's settings then; nil = there is none.
	QubesDB map[string]string
	Config  string // more lines for netvmd.toml, after the lab's own; whole [tables] that are not there yet
	// Bare leaves out all daemons, the office and the VPN: the netvm has a fixed address at home, and its AppVMs are
	// there, not attached yet. Such a lab is up in a tenth of a second.
	Bare bool
	// Booted leaves out the VPN and all daemons of the netvm: a container becomes it (NetVM.Boot), which has its own.
	Booted bool
	// FakeNetworkManager has NetworkManager played by NetVM.FakeNM instead of the real one, for Wi-Fi and modems, which no machine
	// has in a namespace. The netvm then has fixed addresses at home.
	FakeNetworkManager bool
	// Portal has NetworkManager check how far it gets, with a web server that plays the Internet's and, at
	// home, can play a captive portal: Lab.Portal.
	Portal bool
}

// Virtual DNS addresses. The IPv4 ones are those of Qubes; IPv6 has no fixed ones yet, so these are free
// addresses of the range that Qubes gives to AppVMs.
var (
	Virtual4 = []netip.Addr{addr("10.139.1.1"), addr("10.139.1.2")}
	Virtual6 = []netip.Addr{addr("fd09:24ef:4179::a8b:101"), addr("fd09:24ef:4179::a8b:102")}
)

// Lab is a netvm with its networks and its AppVMs.
type Lab struct {
	NetVM    *NetVM
	Home     *Network
	Office   *Network
	VPN      *Network
	Work     *AppVM
	Personal *AppVM
	Portal   *Portal // at home; nil unless it was asked for

	proxies []*Proxy
	more    []*AppVM
	portals []*Portal // of each network that leads to the Internet
}

// New builds a lab: everything runs when it returns, but for netvmd, and NetworkManager has no connection up.
// The program must have called Enter, and has one lab at a time. On an error what was built is closed again.
func New(ctx context.Context, o Options) (*Lab, error) {
	if _, err := os.Stat(realEtc); err != nil {
		return nil, errors.New("lab: not in namespaces of its own: Enter was not called")
	}
	if o.Backend == "" {
		o.Backend = NFTables
	}
	if o.Virtual == nil {
		o.Virtual = Virtual4
	}
	if err := requireTools(o.Backend); err != nil {
		return nil, err
	}
	for _, dir := range []string{hostsDir, logDir, domainsDir} {
		// What a lab before this one, in the same program, left there.
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("lab: %w", err)
		}
	}
	l := &Lab{}
	if err := l.build(ctx, o); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context, o Options) error {
	var err error
	if l.NetVM, err = newNetVM(netvmName, o, gateway, gateway6); err != nil {
		return err
	}
	if err := l.NetVM.writeConnections(); err != nil {
		return err
	}
	// netvmd's client library and every program started from here find the netvm's bus by it.
	if err := os.Setenv("DBUS_SYSTEM_BUS_ADDRESS", l.NetVM.BusAddress()); err != nil {
		return err
	}
	if l.Home, err = newNetwork(homeSite, l.NetVM.Host); err != nil {
		return err
	}
	for _, a := range []struct {
		at   **AppVM
		plan appPlan
	}{{&l.Work, workPlan}, {&l.Personal, personalPlan}} {
		if *a.at, err = newAppVM(a.plan, l.NetVM); err != nil {
			return err
		}
	}
	if o.Bare {
		return l.NetVM.settleAt(l.Home)
	}
	return l.furnish(ctx, o)
}

// furnish adds what a bare lab has not.
func (l *Lab) furnish(ctx context.Context, o Options) error {
	var err error
	if l.Office, err = newNetwork(officeSite, l.NetVM.Host); err != nil {
		return err
	}
	networks := []*Network{l.Home, l.Office}
	if !o.Booted {
		if l.VPN, err = newNetwork(vpnSite, l.NetVM.Host); err != nil {
			return err
		}
		networks = append(networks, l.VPN)
	}
	for _, n := range networks {
		if err := n.serve(ctx); err != nil {
			return err
		}
	}
	if o.Portal {
		for _, n := range []*Network{l.Home, l.Office} {
			p, err := n.servePortal()
			if err != nil {
				return err
			}
			l.portals = append(l.portals, p)
		}
		l.Portal = l.portals[0]
	}
	if o.Booted {
		return nil
	}
	for _, a := range []*AppVM{l.Work, l.Personal} {
		if o.VifRoute == "" {
			continue
		}
		if err := a.Attach(ctx); err != nil {
			return err
		}
	}
	if err := l.NetVM.StartBus(ctx); err != nil {
		return err
	}
	if o.FakeNetworkManager {
		return errors.Join(l.NetVM.settleAt(l.Home), l.NetVM.StartFakeNetworkManager(ctx))
	}
	return l.NetVM.StartNetworkManager(ctx)
}

// Hosts returns all machines of the lab.
func (l *Lab) Hosts() []*Host {
	var hosts []*Host
	for _, v := range l.netvms() {
		hosts = append(hosts, v.Host)
	}
	for _, n := range []*Network{l.Home, l.Office, l.VPN} {
		if n != nil {
			hosts = append(hosts, n.Host)
		}
	}
	for _, a := range l.appVMs() {
		hosts = append(hosts, a.Host)
	}
	return hosts
}

// netvms are the netvm and the proxies that were made.
func (l *Lab) netvms() []*NetVM {
	if l.NetVM == nil {
		return nil
	}
	netvms := []*NetVM{l.NetVM}
	for _, p := range l.proxies {
		netvms = append(netvms, p.NetVM)
	}
	return netvms
}

// appVMs are those that were made.
func (l *Lab) appVMs() []*AppVM {
	made := slices.Clone(l.more)
	for _, a := range []*AppVM{l.Work, l.Personal} {
		if a != nil {
			made = append(made, a)
		}
	}
	return made
}

// Close ends every daemon of the lab and its hosts. (Were it not called, the end of the program would do
// the same: see Enter.)
func (l *Lab) Close() error {
	ctx := context.Background()
	var errs []error
	for _, a := range l.appVMs() {
		errs = append(errs, a.end(ctx))
	}
	netvms := l.netvms()
	slices.Reverse(netvms)
	for _, v := range netvms {
		errs = append(errs, v.end(ctx))
	}
	for _, p := range l.portals {
		errs = append(errs, p.close())
	}
	for _, n := range []*Network{l.Home, l.Office, l.VPN} {
		if n == nil {
			continue
		}
		errs = append(errs, n.dhcp.Stop(ctx, syscall.SIGKILL))
		for _, p := range n.servers {
			errs = append(errs, p.Stop(ctx, syscall.SIGKILL))
		}
	}
	for _, h := range l.Hosts() {
		h.close()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab: close: %w", err)
	}
	return nil
}
