package dbus

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	godbus "github.com/godbus/dbus/v5"
)

// dict is a{sv}, the form of everything that may gain members.
type dict = map[string]godbus.Variant

// pair is (ss): a target, or a dropped resolver and the reason.
type pair struct{ First, Second string }

// variants makes a dict of plain values. Texts are made what the bus takes.
func variants(values map[string]any) dict {
	d := make(dict, len(values))
	for name, v := range values {
		switch v := v.(type) {
		case string:
			d[name] = godbus.MakeVariant(text(v))
		case []string:
			d[name] = godbus.MakeVariant(each(v, text))
		case []pair:
			d[name] = godbus.MakeVariant(each(v, func(p pair) pair { return pair{text(p.First), text(p.Second)} }))
		default:
			d[name] = godbus.MakeVariant(v)
		}
	}
	return d
}

// each turns every element of a list into its form on the bus, or back. The result is never nil: godbus would not know
// its type.
func each[From, To any](list []From, turn func(From) To) []To {
	out := make([]To, len(list))
	for i, e := range list {
		out[i] = turn(e)
	}
	return out
}

// parseEach is each for what came over the bus: the first element that makes no sense is the error. No elements are nil.
func parseEach[From, To any](list []From, parse func(From) (To, error)) ([]To, error) {
	var out []To
	for _, e := range list {
		v, err := parse(e)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// take stores members of a dict where fields says. A member that is missing, or of another type, is an error that names it.
func take(values dict, fields map[string]any) error {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names) // of several errors always the same
	for _, name := range names {
		v, ok := values[name]
		if !ok {
			return fmt.Errorf("%s is missing: is netvmd of another version?", name)
		}
		// godbus converts where Go does, a number to a text for one.
		want := godbus.SignatureOfType(reflect.TypeOf(fields[name]).Elem())
		if v.Signature() != want {
			return fmt.Errorf("%s is of type %s, not %s", name, v.Signature(), want)
		}
		if err := store(v.Value(), fields[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// store puts a value where into points. godbus' Store alone would make the variants inside anew, and forget their types.
func store(value, into any) error {
	to, from := reflect.ValueOf(into).Elem(), reflect.ValueOf(value)
	if from.Type() == to.Type() {
		to.Set(from)
		return nil
	}
	return godbus.Store([]any{value}, into)
}

// orEmpty writes an address; "" is none.
func orEmpty(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// parseOrNone is orEmpty's inverse.
func parseOrNone(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(text)
}

// micros gives CLOCK_REALTIME in microseconds; 0 is never.
func micros(t time.Time) uint64 {
	if t.IsZero() {
		return 0
	}
	return uint64(t.UnixMicro())
}

// moment is the inverse of micros.
func moment(us uint64) (time.Time, error) {
	if us == 0 {
		return time.Time{}, nil
	}
	if us > math.MaxInt64 {
		return time.Time{}, fmt.Errorf("%d is no time in microseconds", us)
	}
	return time.UnixMicro(int64(us)), nil
}

// span turns microseconds into a duration.
func span(us uint64) (time.Duration, error) {
	if us > math.MaxInt64/uint64(time.Microsecond) {
		return 0, fmt.Errorf("%d is no duration in microseconds", us)
	}
	return time.Duration(us) * time.Microsecond, nil
}

const (
	// maxQuoted bounds how many bytes of a bad value are repeated in a sentence, maxSentence the sentence.
	maxQuoted   = 80
	maxSentence = 400
)

// text makes a text what the bus takes, D-Bus specification, "Basic types": UTF-8 without NUL. A neighbour's Wi-Fi may have
// any bytes for a name.
func text(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// sentence makes a text one line that the bus takes.
func sentence(s string) string {
	if len(s) > maxSentence {
		s = s[:maxSentence] + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text(s))
}
