package report

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"netvmd/internal/doctor"
	"netvmd/internal/netvm"
)

// Redactor puts placeholders for what tells where somebody is: public addresses, MACs, and the names of networks. The same
// thing has the same placeholder, so that a text still makes sense. It does its best: what it does not recognize stays.
type Redactor struct {
	names  []string            // of networks, the longest first
	number map[string][]string // by kind, what was found so far
}

// NewRedactor makes a redactor for what is about a netvm with this status, whose names it learns from it.
func NewRedactor(s netvm.Status) *Redactor {
	r := &Redactor{number: map[string][]string{}}
	for _, u := range s.Uplinks {
		for _, name := range []string{u.SSID, u.ID} {
			if name != "" && !slices.Contains(r.names, name) {
				r.names = append(r.names, name)
				r.placeholder("network", name)
			}
		}
	}
	slices.SortStableFunc(r.names, func(a, b string) int { return len(b) - len(a) })
	return r
}

// placeholder is what stands for a thing of a kind.
func (r *Redactor) placeholder(kind, thing string) string {
	i := slices.Index(r.number[kind], thing)
	if i < 0 {
		i = len(r.number[kind])
		r.number[kind] = append(r.number[kind], thing)
	}
	return fmt.Sprintf("<%s-%d>", kind, i+1)
}

// Status is a status without the names of networks. They are taken out before anything is written, as a text may break a
// name at the end of a line. Addresses and MACs stay: Text finds them.
func (r *Redactor) Status(s netvm.Status) netvm.Status {
	s.Uplinks = slices.Clone(s.Uplinks)
	for i := range s.Uplinks {
		u := &s.Uplinks[i]
		u.SSID, u.ID = r.name(u.SSID), r.name(u.ID)
	}
	s.DNSReason = r.sentence(s.DNSReason)
	s.Problems = slices.Clone(s.Problems)
	for i, p := range s.Problems {
		s.Problems[i] = r.sentence(p)
	}
	return s
}

// Checks are results without the names of networks.
func (r *Redactor) Checks(results []doctor.Result) []doctor.Result {
	out := slices.Clone(results)
	for i := range out {
		out[i].Found, out[i].Remedy = r.sentence(out[i].Found), r.sentence(out[i].Remedy)
	}
	return out
}

func (r *Redactor) name(name string) string {
	if name == "" {
		return ""
	}
	return r.placeholder("network", name)
}

// quotedBytes is to how many bytes nmhook cuts a name in a sentence.
const quotedBytes = 80

// sentence takes names out of a sentence. They stand in quotation marks there, as everything from outside does; a word that
// only reads like a name stays.
func (r *Redactor) sentence(s string) string {
	for _, name := range r.names {
		placeholder := strconv.Quote(r.name(name))
		s = strings.ReplaceAll(s, strconv.Quote(name), placeholder)
		if len(name) > quotedBytes {
			s = strings.ReplaceAll(s, strconv.Quote(name[:quotedBytes])+"…", placeholder)
		}
	}
	return s
}

// These find what may be an address or a MAC; a MAC may also be in the name that udev gives a device (systemd.net-naming-
// scheme(7), "x" and twelve digits).
var (
	macs      = regexp.MustCompile(`\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b`)
	macNames  = regexp.MustCompile(`\b(en|ib|sl|wl|ww)x([0-9a-f]{12})\b`)
	addresses = regexp.MustCompile(`[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:]|\b\d{1,3}(?:\.\d{1,3}){3}\b`)
)

// Text is a text without public addresses and MACs.
func (r *Redactor) Text(text string) string {
	text = macNames.ReplaceAllStringFunc(text, func(name string) string {
		digits := name[len("enx"):]
		pairs := make([]string, 6)
		for i := range pairs {
			pairs[i] = digits[2*i : 2*i+2]
		}
		return name[:len("enx")] + r.placeholder("mac", strings.Join(pairs, ":"))
	})
	text = addresses.ReplaceAllStringFunc(text, r.address)
	return macs.ReplaceAllStringFunc(text, func(mac string) string { return r.placeholder("mac", strings.ToLower(mac)) })
}

// address is the placeholder of a text that is a public address; any other text stays.
func (r *Redactor) address(text string) string {
	a, err := netip.ParseAddr(text)
	if err != nil || !tells(a) {
		return text
	}
	return r.placeholder("address", a.String())
}

// tells tells whether an address says where somebody is: the public ones do, and those with a MAC in them.
func tells(a netip.Addr) bool {
	if a.Is4In6() {
		a = a.Unmap()
	}
	switch {
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast():
		return false
	case a.Is4():
		return !a.IsPrivate() && !a.IsLinkLocalUnicast() && !isMask(a)
	}
	// A modified EUI-64 has ff:fe in its middle (RFC 4291, appendix A).
	bytes := a.As16()
	return bytes[11] == 0xff && bytes[12] == 0xfe || !a.IsPrivate() && !a.IsLinkLocalUnicast()
}

// isMask tells whether an address can be a netmask: ones, then zeros.
func isMask(a netip.Addr) bool {
	bytes := a.As4()
	hosts := ^binary.BigEndian.Uint32(bytes[:])
	return hosts&(hosts+1) == 0
}
