package report

import (
	"cmp"
	"strings"
	"unicode"
)

// narrowest is the least width that text is wrapped to, in columns: less helps nobody.
const narrowest = 16

// gap is what stands between the columns of most tables.
const gap = "   "

// wide are the characters that take two columns (Unicode Standard Annex 11, East Asian Wide and Fullwidth, without the rare
// ones).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115f, 1}, {0x2e80, 0x303e, 1}, {0x3041, 0xa4cf, 1}, {0xac00, 0xd7a3, 1}, {0xf900, 0xfaff, 1},
		{0xfe30, 0xfe6f, 1}, {0xff01, 0xff60, 1}, {0xffe0, 0xffe6, 1},
	},
	R32: []unicode.Range32{{0x1f300, 0x1f64f, 1}, {0x1f680, 0x1f6ff, 1}, {0x1f900, 0x1f9ff, 1}, {0x20000, 0x3fffd, 1}},
}

// width is how many columns a harmless text takes.
func width(s string) int {
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

// wrap breaks a text so that no line takes more than limit columns.
func wrap(s string, limit int) []string {
	limit = max(limit, narrowest)
	var lines []string
	for width(s) > limit {
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

// columns aligns the cells of rows, with gap between them. Cells are made harmless.
func columns(gap string, cells [][]string) []string {
	var widths []int
	for _, row := range cells {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(Harmless(cell)))
		}
	}
	out := make([]string, len(cells))
	for i, row := range cells {
		var b strings.Builder
		for j, cell := range row {
			if j > 0 {
				b.WriteString(gap)
			}
			cell = Harmless(cell)
			b.WriteString(cell + strings.Repeat(" ", widths[j]-width(cell)))
		}
		out[i] = strings.TrimRight(b.String(), " ")
	}
	return out
}

// Table aligns rows under their head, which is the first of them.
func Table(cells [][]string) string { return strings.Join(columns(gap, cells), "\n") + "\n" }
