package dbus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	godbus "github.com/godbus/dbus/v5"

	"netvmd/internal/netvm"
)

// wire is values as they are in a message.
func wire(t testing.TB, values ...any) []byte {
	t.Helper()
	m := &godbus.Message{Type: godbus.TypeMethodReply, Body: values, Headers: map[godbus.HeaderField]godbus.Variant{
		godbus.FieldReplySerial: godbus.MakeVariant(uint32(1)), godbus.FieldSignature: godbus.MakeVariant(godbus.SignatureOf(values...)),
	}}
	var out bytes.Buffer
	if err := m.EncodeTo(&out, binary.LittleEndian); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Whatever has netvmd's name may answer anything that is a message: it is decoded, or it is an error.
func FuzzDecode(f *testing.F) {
	f.Add(wire(f, encode(sample())))
	f.Add(wire(f, encodeStatistics(sample().Statistics, sampleTally())))
	f.Add(wire(f, each(sampleRoutes(), encodeRoute)))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := godbus.DecodeMessage(bytes.NewReader(b))
		if err != nil || len(m.Body) == 0 {
			return
		}
		switch v := m.Body[0].(type) {
		case dict:
			if s, err := decode(v); err == nil {
				wire(t, encode(s))
			}
			if s, tally, err := decodeStatistics(v); err == nil {
				wire(t, encodeStatistics(s, tally))
			}
		case []dict:
			if routes, err := parseEach(v, decodeRoute); err == nil {
				wire(t, each(routes, encodeRoute))
			}
		}
	})
}

// manyVifs is the status of a netvm with 256 AppVMs.
func manyVifs() netvm.Status {
	s := sample()
	s.Vifs = nil
	for n := range 256 {
		s.Vifs = append(s.Vifs, netvm.Vif{Name: fmt.Sprintf("vif%d.0", n+1), DomID: n + 1, MAC: "00:16:3e:5e:6c:01",
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 137, 0, byte(n)})}, Gateway: netip.MustParseAddr("10.137.0.6"),
			Metric: 32752 - n, State: netvm.VifUp, Since: time.UnixMicro(1_700_000_000_000_000)})
	}
	return s
}

// BenchmarkGetAll is what netvmd does for one GetAll with 256 vifs, over a real bus, whose own work and the client's are
// counted too.
func BenchmarkGetAll(b *testing.B) {
	s := newScene(b)
	s.service.Publish(manyVifs())
	s.await(b, "the vifs", func(e Event) bool { return len(e.Status.Vifs) == 256 })
	r := newRawCaller(b)
	body := append(binary.LittleEndian.AppendUint32(nil, uint32(len(Interface))), Interface+"\x00"...)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		r.call(Name, string(Path), properties, "GetAll", 0, "s", body)
		r.skip()
	}
}

// BenchmarkSnapshot is what a new status costs, with 256 vifs: once, whoever asks how often.
func BenchmarkSnapshot(b *testing.B) {
	status := manyVifs()
	b.ReportAllocs()
	for range b.N {
		if _, err := newSnapshot(status, 1).all(); err != nil {
			b.Fatal(err)
		}
	}
}
