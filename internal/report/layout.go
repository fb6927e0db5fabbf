package report

import (
	"strings"

	"netvmd/internal/words"
)

// gap is what stands between the columns of most tables.
const gap = "   "

// columns aligns the cells of rows, with gap between them. Cells are made harmless.
func columns(gap string, cells [][]string) []string {
	var widths []int
	for _, row := range cells {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], words.Width(words.Harmless(cell)))
		}
	}
	out := make([]string, len(cells))
	for i, row := range cells {
		var b strings.Builder
		for j, cell := range row {
			if j > 0 {
				b.WriteString(gap)
			}
			cell = words.Harmless(cell)
			b.WriteString(cell + strings.Repeat(" ", widths[j]-words.Width(cell)))
		}
		out[i] = strings.TrimRight(b.String(), " ")
	}
	return out
}

// Table aligns rows under their head, which is the first of them.
func Table(cells [][]string) string { return strings.Join(columns(gap, cells), "\n") + "\n" }
