// Package netvm holds the values that every part of the program speaks in: what was seen of the way out
// (View), where AppVM DNS goes now (Target), and what is published (Status). It imports only the standard
// library, does no I/O, and everything in it is passed by value and never changed after it was handed over.
package netvm

import (
	"errors"
	"net/netip"
	"time"
)

// State says how far the netvm gets. The strings are those of the D-Bus property State.
type State string

// The states, from NetworkManager's State and Connectivity.
const (
	Offline    State = "offline"    // no uplink is active
	Connecting State = "connecting" // an uplink is being brought up
	Limited    State = "limited"    // an uplink is active, the Internet is not reached through it
	Portal     State = "portal"     // a captive portal answers instead of the Internet
	Online     State = "online"     // an uplink is active and nothing is known against it
)

// TypeNetVM is the type of an uplink that leads to another netvm, without NetworkManager.
const TypeNetVM = "netvm"

// Uplink is one active way out of the netvm.
type Uplink struct {
	ID        string // NetworkManager's name for the connection, valid UTF-8; "" = it is not NetworkManager's
	Type      string // NetworkManager's connection type, such as "802-3-ethernet", or TypeNetVM
	Interface string // the kernel's name of the device that carries IP
	SSID      string // Wi-Fi only: the network's name, made valid UTF-8
	Strength  uint8  // Wi-Fi only: signal, in percent
	Addresses []netip.Prefix
	Gateway   netip.Addr // the zero Addr without one
	VPN       bool
	Metered   bool
}

// Resolver is a DNS server that the uplink announced.
type Resolver struct {
	Addr      netip.Addr
	Interface string // the device it was announced for; "" where the source does not say
}

// Target is where one virtual DNS address leads now.
type Target struct {
	Virtual  netip.Addr
	Resolver Resolver // the zero Resolver = unserved: queries are refused at once
}

// Served tells whether queries to the virtual address reach a resolver.
func (t Target) Served() bool { return t.Resolver.Addr.IsValid() }

// Admission lets one vif send from one address.
type Admission struct {
	Vif  string
	Addr netip.Addr
}

// VifState says whether the kernel carries a vif as it should.
type VifState string

// The states of a vif. The strings are those of the D-Bus property Vifs.
const (
	VifUp       VifState = "up"
	VifDegraded VifState = "degraded" // something of it is missing in the kernel, or differs
)

// Vif is the netvm's end of an AppVM's network card.
type Vif struct {
	Name           string       `json:"name"`            // vif<domid>.<devid>
	DomID          int          `json:"domid"`           // of the AppVM, 0 to 32752
	Addresses      []netip.Addr `json:"addresses"`       // the AppVM's, as the netvm and all beyond it see them
	Visible        netip.Addr   `json:"visible_address"` // as the AppVM sees the first of them; the zero Addr = the same
	VisibleGateway netip.Addr   `json:"visible_gateway"` // likewise its gateway
	MAC            string       `json:"mac"`             // of the AppVM's card
	Gateway        netip.Addr   `json:"gateway"`         // the netvm's address on the vif; the zero Addr without IPv4
	Gateway6       netip.Addr   `json:"gateway6"`        // likewise; the zero Addr without IPv6
	Metric         int          `json:"metric"`          // of the routes to Addresses: less is preferred
	State          VifState     `json:"state"`
	Since          time.Time    `json:"since"` // when it came up
}

// Hiding is how an AppVM sees itself under another address than the netvm does. Between the two stands a network
// namespace with two devices.
type Hiding struct {
	Inner, Outer            string     // the devices: towards the AppVM, and towards the netvm
	Real, Visible           netip.Addr // the AppVM's address, as the netvm sees it and as the AppVM does
	Gateway, VisibleGateway netip.Addr // its gateway, likewise
}

// View is everything read about the way out at one moment.
type View struct {
	State          State
	PortalURL      string   // while State is Portal, where its page can be had: see ParsePortalURL; "" = nobody said
	Uplinks        []Uplink // the primary first
	NetworkManager NetworkManagerDNS
	Resolved       ResolvedDNS
	ResolvConf     ResolvConf
	Chained        Chained
	Faults         []string // what could not be read or made no sense: a sentence each, naming what and where

	// Arrived is when the oldest signal that this view answers came in; zero when no signal led to it.
	Arrived time.Time
	// Signals counts the signals that this view answers.
	Signals int
}

// Chained is the way out through another netvm, as the kernel has it. It is read only where another netvm serves this one.
type Chained struct {
	State   State // Online, Limited without a default route, or Offline; "" where no other netvm serves this one
	Uplinks []Uplink
}

// WayOut is how far the netvm gets, and through what. NetworkManager's word counts; where it does not run, or has no uplink,
// and another netvm serves this one, what the kernel has is the way out.
func (v View) WayOut() (State, []Uplink) {
	managed := v.NetworkManager.Running && (len(v.Uplinks) > 0 || v.State != Offline)
	if managed || v.Chained.State == "" {
		return v.State, v.Uplinks
	}
	return v.Chained.State, v.Chained.Uplinks
}

// NetworkManagerDNS is NetworkManager's DnsManager.Configuration.
type NetworkManagerDNS struct {
	Running bool       // its bus name has an owner; the entries are its last word either way
	Entries []DNSEntry // in its order: the most important first
}

// DNSEntry is one entry of DnsManager.Configuration.
type DNSEntry struct {
	Interface string
	Priority  int32 // lower is more important; a negative one excludes entries of a higher number
	VPN       bool
	Servers   []netip.Addr
}

// ResolvedDNS is systemd-resolved's DNS property.
type ResolvedDNS struct {
	Running bool             // its bus name has an owner
	Servers []ResolvedServer // in its order
}

// ResolvedServer is one entry of systemd-resolved's DNS property.
type ResolvedServer struct {
	Link     int      // interface index; 0 = global
	Resolver Resolver // Interface is "" for a global one
}

// ResolvConfOwner says who wrote resolv.conf.
type ResolvConfOwner string

// The writers that matter: only others are a source of their own.
const (
	ResolvConfAbsent         ResolvConfOwner = "absent"         // no file
	ResolvConfNetworkManager ResolvConfOwner = "networkmanager" // its header says so
	ResolvConfResolved       ResolvConfOwner = "resolved"       // the stub, or a file that resolved writes
	ResolvConfNetvmctl       ResolvConfOwner = "netvmctl"       // netvmctl uplink: its header says so; it has the store's words
	ResolvConfOther          ResolvConfOwner = "other"          // a VPN's script, an admin, a daemon
)

// ResolvConf is what the nameserver lines of resolv.conf say.
type ResolvConf struct {
	Path    string
	Owner   ResolvConfOwner
	Servers []netip.Addr
}

// Dropped is a resolver that was announced and is not used.
type Dropped struct {
	Addr   netip.Addr
	Reason string
}

// Override is what a caller on the bus wants instead of the resolvers that the uplink announces.
type Override struct {
	Servers    []netip.Addr
	Persistent bool      // over the end of its caller and of netvmd, until it is cleared; else until Holder leaves the bus
	Holder     string    // the caller's unique name on the bus, such as ":1.42"
	By         string    // who that is, for people: "netvmctl (pid 4711, user 0)"
	Since      time.Time // when it was set
}

// InvalidError is bad input: the sentence says what was wrong, and nothing was changed.
type InvalidError string

func (e InvalidError) Error() string { return string(e) }

// ErrTooMany is wrapped when something would be right, and there are as many of its kind as there may be.
var ErrTooMany = errors.New("too many at once")

// Statistics counts what the daemon did since it started.
type Statistics struct {
	Applies   uint64 // transactions that changed the kernel because the wanted targets changed
	Coalesced uint64 // signals that were answered together with an earlier one
	Restored  uint64 // transactions that undid a change made by somebody else
	Latency   Latency
}

// Latency is how long changes of the targets took, from the arrival of the signal to the kernel's acknowledgement, since
// the start. All are 0 before the first.
type Latency struct {
	Count              uint64
	P50, P90, P99, Max time.Duration
}

// Tally is what the kernel counted since the rules were loaded and the devices made.
type Tally struct {
	Traffic  []Traffic // of every vif, ordered by domain and device
	Counters []Counter // of every rule that drops or refuses, in the order of the rules
	// The same in packets, summed up by what they were stopped for.
	Spoofed         uint64 // under an address that the vif does not have
	Unserved        uint64 // queries to a virtual DNS address without a resolver
	InputRejected   uint64 // to the netvm itself
	ForwardRejected uint64 // to another AppVM, or nowhere that is open
}

// Traffic is what passed a vif, as the netvm sees it: received is what the AppVM sent.
type Traffic struct {
	Vif                                    string
	RxBytes, RxPackets, TxBytes, TxPackets uint64
}

// Counter counts the packets that met one of our rules.
type Counter struct {
	Table   string `json:"table"` // as the backend's own tool names it, such as "ip netvmd" or "ip raw"
	Name    string `json:"name"`  // of the counter or, with iptables, of the chain with the rule
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Route is one row of the kernel's main IPv4 routing table, as `route -n` shows it.
type Route struct {
	Destination, Gateway, Genmask netip.Addr // 0.0.0.0 for none
	Flags                         string     // as route(8) writes them: "UG"
	Metric, Ref, Use              uint32
	Interface                     string
}

// Status is all that the daemon publishes: one immutable snapshot.
type Status struct {
	Version      string
	State        State
	NMRunning    bool   // NetworkManager's bus name has an owner; true until that is known
	Served       bool   // another netvm serves this one: its uplink is seen without NetworkManager too
	PortalURL    string // while a captive portal answers: an http or https address that leads to it; else ""
	Uplinks      []Uplink
	DNSSource    string        // where the resolvers come from: "override", "config", "resolved", "resolv.conf", "networkmanager", "store"
	DNSReason    string        // why, in one sentence
	DNSServers   []Resolver    // usable ones, in order
	DNSDropped   []Dropped     // announced and not used
	DNSTargets   []Target      // in the order of the virtual addresses
	DNSOverrides []Override    // the newest, which is in force, first
	ChangedAt    time.Time     // when the targets last changed in the kernel; zero = not since the start
	ApplyTime    time.Duration // from the arrival of the signal to the kernel's acknowledgement, of that change
	Backend      string        // "nftables" or "iptables"
	Vifs         []Vif         // those that are there, ordered by domain and device
	Problems     []string      // what is wrong now: a sentence each, with what to do
	Statistics   Statistics    // not a property: Client.Status leaves it empty
}

// Unmanaged tells whether nobody sees the uplinks: NetworkManager does not run, and no other netvm serves this one.
func (s Status) Unmanaged() bool { return !s.NMRunning && !s.Served }
