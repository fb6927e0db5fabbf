package lab

import (
	"maps"
	"net/netip"
)

// The proxy: its addresses end with its number.
const (
	proxyName   = "proxy"
	proxyNumber = 13
	proxyDomID  = 3
)

// netvmGateway is the key that says what a netvm's own address towards its AppVMs is.
const netvmGateway = "/qubes-netvm-gateway"

// Served is what Qubes writes into the QubesDB of a domain that a netvm serves.
func (a *AppVM) Served() map[string]string {
	return served(a.Card.MAC, a.Address, a.Address6, a.netvm)
}

func served(mac string, address, address6 netip.Addr, by *NetVM) map[string]string {
	return map[string]string{
		"/qubes-mac": mac, "/qubes-ip": address.String(), "/qubes-netmask": "255.255.255.255",
		"/qubes-gateway": by.Gateway.String(), "/qubes-primary-dns": Virtual4[0].String(), "/qubes-secondary-dns": Virtual4[1].String(),
		"/qubes-ip6": address6.String(), "/qubes-netmask6": "128", "/qubes-gateway6": by.Gateway6.String(),
	}
}

// ProxyKeys is what Qubes writes into the proxy's QubesDB: it is served, and serves.
func (l *Lab) ProxyKeys() map[string]string {
	address, address6, mac := numbered(proxyNumber)
	keys := served(mac, address, address6, l.NetVM)
	maps.Copy(keys, map[string]string{
		"/qubes-netvm-network": address.String(), netvmGateway: address.String(), "/qubes-netvm-gateway6": address6.String(),
		"/qubes-netvm-netmask": "255.255.255.255", "/qubes-netvm-primary-dns": Virtual4[0].String(), "/qubes-netvm-secondary-dns": Virtual4[1].String(),
	})
	return keys
}

// Proxy is a chained netvm: a netvm of its AppVMs whose own uplink, eth0, is a card of the netvm above.
type Proxy struct {
	*NetVM
	Uplink *AppVM // the same domain, as the netvm above serves it
}

// Proxy makes a chained netvm behind the lab's. Its settings are its QubesDB's; of the options these count: Config, LogLevel,
// Backend ("" = the lab's), Virtual (nil = the store's) and QubesDB, whose keys are laid over those of ProxyKeys (an empty
// value takes a key away). No daemon runs in it, and its uplink is not attached yet.
func (l *Lab) Proxy(o Options) (*Proxy, error) {
	above := l.NetVM.options
	o.Netvmd, o.VifRoute = above.Netvmd, above.VifRoute
	if o.Backend == "" {
		o.Backend = above.Backend
	}
	keys := l.ProxyKeys()
	maps.Copy(keys, o.QubesDB)
	maps.DeleteFunc(keys, func(_, value string) bool { return value == "" })
	o.QubesDB = keys
	address, address6, mac := numbered(proxyNumber)
	v, err := newNetVM(proxyName, o, address, address6)
	if err != nil {
		return nil, err
	}
	p := &Proxy{NetVM: v}
	l.proxies = append(l.proxies, p)
	p.Uplink, err = serve(v.Domain, appPlan{proxyName, proxyDomID, address, address6, mac}, l.NetVM)
	return p, err
}
