package vif

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"path"
	"testing"

	"netvmd/internal/netvm"
)

var errNoNode = errors.New("no such node")

// nodes is a store of a few values.
type nodes map[string]string

func (n nodes) Read(_ context.Context, p string) (string, error) {
	value, ok := n[path.Base(p)]
	if !ok {
		return "", errNoNode
	}
	return value, nil
}

var fuzzSettings = Settings{
	Gateway: netip.MustParseAddr("10.137.0.6"), Gateway6: netip.MustParseAddr("fd09:24ef:4179::a89:6"),
	Virtual: []netip.Addr{netip.MustParseAddr("10.139.1.1")},
}

// FuzzSpec: whatever the toolstack says, what is taken for good is safe to be done, and its record says the same.
func FuzzSpec(f *testing.F) {
	f.Add("vif4.0", "backend/vif/4/0", "10.137.0.5 fd09::5", "00:16:3e:5e:6c:00", "vif")
	f.Add("vif32752.65535", "/local/domain/7/backend/vif/32752/65535", "10.137.0.5", "00-16-3e-5e-6c-00", "")
	f.Add("vif../x", "backend/vif/4/0/../5/0", "::ffff:10.137.0.5", "01:00:5e:00:00:01", "\n")
	f.Fuzz(func(t *testing.T, name, where, ip, mac, kind string) {
		s, err := ReadSpec(context.Background(), name, where, nodes{"ip": ip, "mac": mac, "type": kind}, errNoNode, fuzzSettings)
		if err != nil {
			return
		}
		mustBeSafe(t, s)
		s.State = netvm.VifUp
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		back, err := parseRecord(name, text)
		if err != nil || !back.same(s) {
			t.Errorf("the record %s is read as %+v, %v", text, back, err)
		}
	})
}

// FuzzRecord: a record that somebody wrote is as good as what comes from the store, or an error.
func FuzzRecord(f *testing.F) {
	f.Add("vif4.0", []byte(recordText))
	f.Add("vif4.0", []byte(`{"name":"vif4.0","domid":4,"metric":32748,"mac":"00:16:3e:5e:6c:00","addresses":["127.0.0.1","ff02::1",""]}`))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		if s, err := parseRecord(name, text); err == nil {
			mustBeSafe(t, s)
		}
	})
}

// mustBeSafe wants a specification that can be done without harm to others.
func mustBeSafe(t *testing.T, s Spec) {
	t.Helper()
	domID, _, err := ParseName(s.Name)
	if err != nil || domID != s.DomID || s.Metric != maxDomID-domID {
		t.Errorf("name %q, domain %d, metric %d: %v", s.Name, s.DomID, s.Metric, err)
	}
	if len(s.Addresses) == 0 || len(s.Addresses) > maxAddresses {
		t.Errorf("%d addresses", len(s.Addresses))
	}
	for i, a := range s.Addresses {
		if !a.IsGlobalUnicast() || a.Is4In6() || a.Zone() != "" || a == s.Gateway || a == s.Gateway6 {
			t.Errorf("address %d is %s", i, a)
		}
	}
	if mac, err := parseMAC(s.MAC); err != nil || mac != s.MAC {
		t.Errorf("MAC %q: %v", s.MAC, err)
	}
}
