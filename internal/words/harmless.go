package words

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// longestName bounds what is shown of a name from outside, in columns. An SSID has at most 32 bytes; NetworkManager bounds
// the names of connections not at all.
const longestName = 48

// Harmless writes the characters that a terminal or a menu would obey instead of show (C0 and C1 controls, marks of direction, other
// formats that have no shape) and bytes that are no UTF-8 as Go's escapes, such as \x1b. What is harmless stays.
func Harmless(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, Obeyed) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if Obeyed(r) || r == utf8.RuneError && size == 1 {
			quoted := strconv.Quote(s[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}

// Obeyed tells whether a terminal or a menu does something else with the character than show it.
func Obeyed(r rune) bool { return !unicode.IsPrint(r) }

// HarmlessLines is Harmless for a text whose line ends are meant.
func HarmlessLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = Harmless(l)
	}
	return strings.Join(lines, "\n")
}

// Quoted is a name from outside in quotation marks, so that nothing in it passes for words of ours.
func Quoted(name string) string { return strconv.Quote(Clip(name, longestName)) }

// Clip cuts a text that is longer than so many columns, and shows that it did. A character that takes none counts as one,
// so that thousands of them are cut as well.
func Clip(s string, longest int) string {
	used := 0
	for i, r := range s {
		if used += max(1, runeWidth(r)); used > longest {
			return s[:i] + "…"
		}
	}
	return s
}
