package words

import (
	"cmp"
	"strings"
	"unicode"
)

// narrowest is the least width that text is wrapped to, in columns: less helps nobody.
const narrowest = 16

// wide are the characters that take two columns (Unicode Standard Annex 11, East Asian Wide and Fullwidth, without the rare
// ones).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1},
		{0xfe30, 0xfe6f, 1}, {0xff01, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1}},
}

// Width is how many columns a harmless text takes.
func Width(s string) int {
	n := 0
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	switch {
	case r < 0x300: // most text
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0 // they stand on the character before
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// Wrap breaks a text so that no line takes more than limit columns.
func Wrap(s string, limit int) []string {
	limit = max(limit, narrowest)
	var lines []string
	for Width(s) > limit {
		end := breakAt(s, limit)
		lines = append(lines, s[:end])
		s = strings.TrimLeft(s[end:], " ")
	}
	return append(lines, s)
}

// breakAt is where a text that takes more than limit columns is broken: at the last space or, without one, in the word.
func breakAt(s string, limit int) int {
	used, space := 0, 0
	for i, r := range s {
		if r == ' ' {
			space = i
		}
		if used += runeWidth(r); used > limit {
			return cmp.Or(space, i)
		}
	}
	return len(s)
}
