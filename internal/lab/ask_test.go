package lab

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// answer packs a response with one TXT record for each text.
func answer(t testing.TB, id uint16, response bool, texts ...string) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, Response: response}}
	name := dnsmessage.MustNewName(questionName + ".")
	for _, text := range texts {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: name, Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.TXTResource{TXT: []string{text}},
		})
	}
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed
}

func TestParseAnswer(t *testing.T) {
	for _, test := range []struct {
		name    string
		message []byte
		who     string
		mine    bool
		bad     bool
	}{
		{"the resolver names itself", answer(t, 1, true, "192.0.2.53"), "192.0.2.53", true, false},
		{"an IPv6 resolver names itself", answer(t, 1, true, "2001:db8:1::53"), "2001:db8:1::53", true, false},
		{"the answer to another question is passed over", answer(t, 2, true, "192.0.2.53"), "", false, false},
		{"a question is no answer", answer(t, 1, false, "192.0.2.53"), "", false, false},
		{"rubbish is passed over", []byte{0, 1, 0x80}, "", false, false},
		{"an answer without a record is an error", answer(t, 1, true), "", true, true},
		{"an answer that names nobody is an error", answer(t, 1, true, "hello"), "", true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			who, mine, err := parseAnswer(1, test.message)
			if mine != test.mine || (err != nil) != test.bad || (test.who != "" && who != addr(test.who)) {
				t.Errorf("got %s, mine=%t, %v", who, mine, err)
			}
		})
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add(answer(f, 1, true, "192.0.2.53"))
	f.Add(answer(f, 1, true, "hello", "192.0.2.53"))
	f.Add(answer(f, 2, false))
	f.Fuzz(func(t *testing.T, message []byte) {
		who, mine, err := parseAnswer(1, message)
		if who.IsValid() != (mine && err == nil) {
			t.Errorf("an address without an answer, or an answer without one: %s, mine=%t, %v", who, mine, err)
		}
	})
}

func TestStrangersAreThoseWhoWereNotTheTargetBetweenQuestionAndAnswer(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	first, second, third := addr("192.0.2.53"), addr("192.0.2.54"), addr("192.0.2.55")
	// The change from first to second reaches the kernel somewhere between 100 and 110.
	epochs := []Epoch{{Until: at(110), Resolver: first}, {From: at(100), Resolver: second}}
	for _, test := range []struct {
		name            string
		asked, answered int
		who             netip.Addr
		err             error
		stranger        bool
	}{
		{"before the change, by the old one", 50, 51, first, nil, false},
		{"before the change, by the new one", 50, 51, second, nil, true},
		{"across the change, by the old one", 99, 120, first, nil, false},
		{"across the change, by the new one", 99, 120, second, nil, false},
		{"after the change, by the new one", 120, 121, second, nil, false},
		{"after the change, by the old one", 120, 121, first, nil, true},
		{"by one that never was the target", 99, 120, third, nil, true},
		{"a query without an answer has no stranger", 99, 120, netip.Addr{}, errors.New("lost"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := Sample{Answer{test.who, at(test.asked), at(test.answered).Sub(at(test.asked))}, test.err}
			if got := len(Strangers([]Sample{s}, epochs)) == 1; got != test.stranger {
				t.Errorf("stranger: %t, want %t", got, test.stranger)
			}
		})
	}
}
