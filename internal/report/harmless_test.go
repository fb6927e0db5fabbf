package report

import (
	"bytes"
	"encoding/json"
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
			if obeyed(r) {
				t.Errorf("%q became %q, with %q in it", s, got, r)
			}
		}
		if again := Harmless(got); again != got {
			t.Errorf("%q became %q, and that %q", s, got, again)
		}
		if q := quoted(s); Harmless(q) != q || len([]rune(q)) > 10*(longestName+3) {
			t.Errorf("%q is quoted as %q", s, q)
		}
		var words int
		for _, l := range wrap(got, 20) {
			words += len(strings.ReplaceAll(l, " ", ""))
			if width(l) > 21 { // a wide character may stand at the edge
				t.Errorf("%q is %d wide", l, width(l))
			}
		}
		if want := len(strings.ReplaceAll(got, " ", "")); words != want {
			t.Errorf("of %q, wrapping keeps %d of %d bytes", got, words, want)
		}
	})
}

func FuzzJSONStaysTheSameValue(f *testing.F) {
	f.Add("Café \x1b[2J \u202e \U000e0001 \\u001b \x00 \" <&>")
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "?")
		var b bytes.Buffer
		if err := WriteJSON(&b, map[string]string{"v": s}, true); err != nil {
			t.Fatal(err)
		}
		for _, r := range b.String() {
			if r != '\n' && obeyed(r) {
				t.Errorf("%q has %q in it", b.String(), r)
			}
		}
		var back map[string]string
		if err := json.Unmarshal(b.Bytes(), &back); err != nil || back["v"] != s {
			t.Errorf("%q came back as %q (%v)", s, back["v"], err)
		}
	})
}
