package vif

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/netvm"
)

// recordText is a good record of vif4.0.
const recordText = `{"name":"vif4.0","domid":4,"addresses":["10.137.0.11","fd00::b"],"visible_address":"","visible_gateway":"",
"mac":"00:16:3e:5e:6c:01","gateway":"10.137.0.6","gateway6":"fd00::6","metric":32748,"state":"up","since":"2026-01-02T03:04:05Z"}`

func TestRecordsAreCheckedLikeTheStore(t *testing.T) {
	if _, err := parseRecord("vif4.0", []byte(recordText)); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string][2]string{
		"another vif's":                   {`"vif4.0"`, `"vif5.0"`},
		"another domain":                  {`"domid":4`, `"domid":5`},
		"another metric":                  {"32748", "1"},
		"no address":                      {`"10.137.0.11","fd00::b"`, ``},
		"a multicast address":             {"10.137.0.11", "224.0.0.1"},
		"an address with a zone":          {"fd00::b", "fd00::b%eth0"},
		"the gateway's address":           {"10.137.0.11", "10.137.0.6"},
		"a multicast Ethernet address":    {"00:16:3e:5e:6c:01", "01:16:3e:5e:6c:01"},
		"an IPv6 gateway in IPv4's place": {"10.137.0.6", "fd00::7"},
		"an IPv4 gateway in IPv6's place": {"fd00::6", "10.137.0.7"},
		"a visible address of IPv6":       {`"visible_address":""`, `"visible_address":"fd00::9"`},
		"no JSON":                         {"{", "["},
	} {
		text := strings.Replace(recordText, change[0], change[1], 1)
		if s, err := parseRecord("vif4.0", []byte(text)); err == nil {
			t.Errorf("%s is taken: %+v", what, s)
		}
	}
}

func TestAnAddressBelongsToTheNewestRecord(t *testing.T) {
	r := NewRecords(t.TempDir())
	for _, s := range []Spec{spec(10, "10.137.0.11"), spec(9, "10.137.0.11", "10.137.0.12")} {
		if err := r.write(s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Admissions()
	if err != nil {
		t.Fatal(err)
	}
	want := []netvm.Admission{{Vif: "vif9.0", Addr: netip.MustParseAddr("10.137.0.12")}, {Vif: "vif10.0", Addr: netip.MustParseAddr("10.137.0.11")}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestARecordThatWasReplacedIsReadAgain(t *testing.T) {
	r, remembered := NewRecords(t.TempDir()), shelf{}
	for _, addr := range []string{"10.137.0.11", "10.137.0.12", "10.137.0.13"} {
		want := spec(9, addr)
		if err := r.write(want); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := remembered.read(r, "vif9.0"); err != nil || !got.same(want) {
				t.Errorf("read %+v, %v, want %s", got, err, addr)
			}
		}
	}
	if err := r.remove("vif9.0"); err != nil {
		t.Fatal(err)
	}
	if _, err := remembered.read(r, "vif9.0"); err == nil {
		t.Error("a record that is gone is remembered")
	}
}
