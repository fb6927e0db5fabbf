package view_test

import (
	"fmt"
	"math/rand"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

// longest bounds every text, in characters and in columns.
const longest = 120

// most bounds how many rows there are in all, whatever is known.
const most = 1500

// shapes is what a menu showed before, place by place: a library that cannot take a submenu away keeps them too.
type shapes struct {
	length int             // of the top level
	sub    map[string]bool // by the path of a place that was shown: had it a submenu
}

// check tells what is wrong with a menu that is shown after all that were checked before.
func (p *shapes) check(s view.Shown) error {
	if !slices.Contains(view.Icons, s.Icon) {
		return fmt.Errorf("icon %q is none of ours", s.Icon)
	}
	if err := fit(s.Title); err != nil {
		return fmt.Errorf("title: %w", err)
	}
	if p.sub == nil {
		p.length, p.sub = len(s.Menu), map[string]bool{}
	}
	if len(s.Menu) != p.length {
		return fmt.Errorf("the top level has %d rows, and had %d", len(s.Menu), p.length)
	}
	if n := size(s.Menu); n > most {
		return fmt.Errorf("%d rows in all", n)
	}
	if err := apart(s.Menu); err != nil {
		return err
	}
	return p.rows("", s.Menu)
}

func (p *shapes) rows(path string, rows []view.Row) error {
	for i, r := range rows {
		place := fmt.Sprintf("%s/%d", path, i)
		if err := p.row(place, r, path == ""); err != nil {
			return fmt.Errorf("place %s, %q: %w", place, r.Text, err)
		}
		if err := p.rows(place, r.Rows); err != nil {
			return err
		}
	}
	return nil
}

func (p *shapes) row(place string, r view.Row, top bool) error {
	sub := len(r.Rows) > 0
	switch {
	case r.Separator && (!top || r.Text != "" || sub):
		return fmt.Errorf("a separator is bare, and at the top level")
	case r.Separator:
		return nil
	case r.Text == "" && !top:
		return fmt.Errorf("hidden in a submenu")
	case r.Text == "":
		if sub || r.Action != view.None {
			return fmt.Errorf("hidden, with rows or an action")
		}
		return nil
	case sub && (r.Disabled || r.Action != view.None):
		return fmt.Errorf("a submenu that does not open")
	}
	if before, shown := p.sub[place]; shown && before != sub {
		return fmt.Errorf("has a submenu: %v, before: %v", sub, before)
	}
	p.sub[place] = sub
	return fit(r.Text)
}

// fit tells why a text is not fit to be shown. The mark that keeps names in right-to-left scripts apart is ours.
func fit(text string) error {
	if !utf8.ValidString(text) || max(utf8.RuneCountInString(text), words.Width(text)) > longest || strings.TrimSpace(text) == "" {
		return fmt.Errorf("no UTF-8, empty, or too long with %d characters", utf8.RuneCountInString(text))
	}
	for i, r := range text {
		ours := r == '\u200e' && i > 0 && text[i-1] == '"'
		if !unicode.IsPrint(r) && !ours {
			return fmt.Errorf("%q has no shape", r)
		}
	}
	return nil
}

// apart tells whether two separators touch, where all rows between them are hidden, or one is at an end.
func apart(rows []view.Row) error {
	last := true
	for _, r := range append(slices.Clone(rows), view.Row{Separator: true}) {
		if r.Separator && last {
			return fmt.Errorf("a section shows nothing")
		}
		last = r.Separator || last && r.Text == ""
	}
	return nil
}

func size(rows []view.Row) int {
	n := len(rows)
	for _, r := range rows {
		n += size(r.Rows)
	}
	return n
}

func TestEverySituationMayFollowEveryOther(t *testing.T) {
	var p shapes
	all := examples.All()
	for range 3 {
		for _, i := range rand.New(rand.NewSource(1)).Perm(len(all)) {
			if err := p.check(view.Of(all[i].Known)); err != nil {
				t.Errorf("%s: %v", all[i].Name, err)
			}
		}
	}
}

func TestThousandsOfVifsMakeAMenuOfBoundedSize(t *testing.T) {
	var p shapes
	for _, n := range []int{0, 1, 8, 9, 20, 21, 399, 400, 401, 1000, 32752} {
		k := view.Known{Running: true, Status: netvm.Status{NMRunning: true, State: netvm.Online, Vifs: make([]netvm.Vif, n)}}
		for i := range k.Status.Vifs {
			k.Status.Vifs[i] = netvm.Vif{Name: fmt.Sprintf("vif%d.0", i+1), DomID: i + 1, State: netvm.VifUp}
		}
		shown := view.Of(k)
		if err := p.check(shown); err != nil {
			t.Errorf("%d vifs: %v", n, err)
		}
		for _, r := range shown.Menu {
			if len(r.Rows) > 21 {
				t.Errorf("%d vifs: %d rows below %q", n, len(r.Rows), r.Text)
			}
		}
	}
}

// FuzzSequence shows what changes at random, one thing after the other.
func FuzzSequence(f *testing.F) {
	for seed := range int64(8) {
		f.Add(seed, "Café \x1b[2J\u202e\nקפה")
	}
	f.Add(int64(8), "no UTF-8: \xff\xfe\xc3")
	f.Fuzz(func(t *testing.T, seed int64, text string) {
		var p shapes
		var told view.Told
		d := dice{rand.New(rand.NewSource(seed)), text[:min(len(text), 200)]}
		for range 3 {
			k := d.known()
			if err := p.check(view.Of(k)); err != nil {
				t.Errorf("%v\nof %+v", err, k)
			}
			after, notice, due := told.Next(k)
			told = after
			if !due {
				continue
			}
			if err := fit(notice.Summary); err != nil {
				t.Errorf("summary %q: %v", notice.Summary, err)
			}
			if err := fit(notice.Body); err != nil {
				t.Errorf("body %q: %v", notice.Body, err)
			}
			if _, _, again := told.Next(k); again {
				t.Errorf("%+v is due twice, of %+v", notice, k)
			}
		}
	})
}

// dice makes what netvmd might publish, and what it would not.
type dice struct {
	*rand.Rand
	text string // some of it is in every name
}

func (d dice) yes() bool { return d.Intn(2) == 0 }

func (d dice) word() string {
	from := d.Intn(len(d.text) + 1)
	to := from + d.Intn(len(d.text)-from+1)
	return strings.Repeat(d.text[from:to], d.Intn(3))
}

func pick[T any](d dice, choice ...T) T { return choice[d.Intn(len(choice))] }

// some makes up to n values.
func some[T any](d dice, n int, of func() T) []T {
	out := make([]T, d.Intn(n+1))
	for i := range out {
		out[i] = of()
	}
	return out
}

func (d dice) addr() netip.Addr {
	return pick(d, netip.Addr{}, netip.AddrFrom4([4]byte{10, 137, byte(d.Intn(256)), byte(d.Intn(256))}),
		netip.MustParseAddr("fd09:24ef:4179::a89:7a"))
}

func (d dice) known() view.Known {
	k := view.Known{Running: d.Intn(8) > 0, Doing: pick(d, view.None, view.Refresh, view.Login), Now: examples.Now}
	if !k.Running {
		return k
	}
	k.Outcome = d.word()
	k.Hindered = map[view.Action]string{pick(d, view.Login, view.Edit, view.Refresh, view.SaveReport): d.word()}
	k.Status = netvm.Status{
		State:     pick(d, netvm.Online, netvm.Offline, netvm.Connecting, netvm.Limited, netvm.Portal, netvm.State(d.word())),
		NMRunning: d.Intn(4) > 0, PortalURL: d.word(), Uplinks: some(d, 7, d.uplink),
		DNSSource: d.word(), DNSReason: d.word(),
		DNSServers:   some(d, 12, func() netvm.Resolver { return netvm.Resolver{Addr: d.addr()} }),
		DNSDropped:   some(d, 12, func() netvm.Dropped { return netvm.Dropped{Addr: d.addr(), Reason: d.word()} }),
		DNSTargets:   some(d, 30, func() netvm.Target { return netvm.Target{Virtual: d.addr(), Resolver: netvm.Resolver{Addr: d.addr()}} }),
		DNSOverrides: some(d, 6, func() netvm.Override { return netvm.Override{Servers: some(d, 40, d.addr), By: d.word()} }),
		ChangedAt:    pick(d, time.Time{}, examples.Now), ApplyTime: time.Duration(d.Int63()),
		Vifs: some(d, pick(d, 0, 10, 25, 50), d.vif), Problems: some(d, pick(d, 0, 3, 40), d.word),
	}
	if d.yes() {
		k.Routes = some(d, 20, func() netvm.Route {
			return netvm.Route{Destination: d.addr(), Genmask: pick(d, netip.IPv4Unspecified(), d.addr()), Metric: d.Uint32(), Interface: d.word()}
		})
		k.Traffic = some(d, 20, func() netvm.Traffic { return netvm.Traffic{Vif: d.word(), RxBytes: d.Uint64()} })
	}
	return k
}

func (d dice) uplink() netvm.Uplink {
	return netvm.Uplink{
		ID: d.word(), Type: pick(d, "802-3-ethernet", "802-11-wireless", "gsm", "vpn", "wireguard", d.word()), Interface: d.word(),
		SSID: d.word(), Strength: uint8(d.Intn(256)), Gateway: d.addr(), VPN: d.yes(), Metered: d.yes(),
		Addresses: some(d, 20, func() netip.Prefix { return netip.PrefixFrom(d.addr(), 24) }),
	}
}

func (d dice) vif() netvm.Vif {
	return netvm.Vif{
		Name: d.word(), DomID: d.Int(), Addresses: some(d, 10, d.addr), Visible: d.addr(), VisibleGateway: d.addr(), MAC: d.word(),
		Gateway: d.addr(), Gateway6: d.addr(), Metric: d.Int(), State: pick(d, netvm.VifUp, netvm.VifDegraded, netvm.VifState(d.word())),
		Since: pick(d, time.Time{}, examples.Now),
	}
}
