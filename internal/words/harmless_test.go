package words

import (
	"strings"
	"testing"
)

func TestWhatATerminalObeysIsWrittenOut(t *testing.T) {
	for in, want := range map[string]string{
		"Café 喫茶店 é 🍵 \ufffd":   "Café 喫茶店 é 🍵 \ufffd",
		"a\x1b[31mb\nc\td\x00":  `a\x1b[31mb\nc\td\x00`,
		"\u009b31m\u200f\u2066": `\u009b31m\u200f\u2066`,
		"a\xffb\U000e0001":      `a\xffb\U000e0001`,
	} {
		if got := Harmless(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := HarmlessLines("one\x1b\ntwo\r"); got != "one\\x1b\ntwo\\r" {
		t.Errorf("got %q", got)
	}
}

func FuzzHarmless(f *testing.F) {
	for _, s := range []string{"", "Café", "\x1b[31m", "a\xffb", "\u202e", "\ufffd", "喫茶店", "\u0301e", "\\x1b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Harmless(s)
		for _, r := range got {
			if Obeyed(r) {
				t.Errorf("%q became %q, with %q in it", s, got, r)
			}
		}
		if again := Harmless(got); again != got {
			t.Errorf("%q became %q, and that %q", s, got, again)
		}
		if q := Quoted(s); Harmless(q) != q || len([]rune(q)) > 10*(longestName+3) {
			t.Errorf("%q is quoted as %q", s, q)
		}
		var words int
		for _, l := range Wrap(got, 20) {
			words += len(strings.ReplaceAll(l, " ", ""))
			if Width(l) > 21 { // a wide character may stand at the edge
				t.Errorf("%q is %d wide", l, Width(l))
			}
		}
		if want := len(strings.ReplaceAll(got, " ", "")); words != want {
			t.Errorf("of %q, wrapping keeps %d of %d bytes", got, words, want)
		}
	})
}
