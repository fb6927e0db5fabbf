// Package report puts what netvmd publishes into words for a terminal, and into JSON for programs. It is pure: values in,
// text out. Whatever comes from outside (names of networks, sentences with such names in them) leaves it harmless: no
// control character, no escape sequence and no mark that turns the direction of writing reaches the terminal.
package report

import (
	"cmp"
	"fmt"
	"strings"

	"netvmd/internal/words"
)

// Screen is what a text is written for.
type Screen struct {
	Width  int  // of the terminal, in columns; 0 = there is none: text is wrapped to 80, tables are as wide as they get
	Colour bool // may escape sequences for colour be used
}

// mark says how good the news of a line are. The words of the line say it too: colour is never alone.
type mark int

const (
	plain mark = iota
	good
	warn
	bad
	strong // no news, but what is looked for first
)

// The codes are those of ECMA-48, "Select Graphic Rendition". They are the terminal's own colours, which its user chose to
// be readable.
var codes = map[mark]string{good: "32", warn: "33", bad: "31", strong: "1"}

func (s Screen) paint(m mark, text string) string {
	code, known := codes[m]
	if !s.Colour || !known || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// line is one thing to say; it is wrapped unless it is a row of a table.
type line struct {
	text  string
	mark  mark
	row   bool
	below bool // it belongs to the line before, and stands further right
}

func say(format string, args ...any) line { return line{text: fmt.Sprintf(format, args...)} }

func (l line) as(m mark) line { l.mark = m; return l }

// rows makes lines of the rows of a table.
func rows(cells [][]string) []line {
	var out []line
	for _, text := range columns(gap, cells) {
		out = append(out, line{text: text, row: true})
	}
	return out
}

// usualWidth is that of a terminal since the punched card, in columns.
const usualWidth = 80

// margin is the width of the left-hand column that names the sections, in columns.
const margin = 10

// page is a text that is being written. All that it takes is made harmless here.
type page struct {
	screen Screen
	text   strings.Builder
}

func (p *page) blank() { p.text.WriteByte('\n') }

// write writes one thing after what stands before it, wrapped and indented as far as that reaches.
func (p *page) write(before string, l line) {
	if l.below {
		before += "  "
	}
	text, indent := words.Harmless(l.text), strings.Repeat(" ", words.Width(before))
	parts := []string{text}
	if !l.row {
		parts = words.Wrap(text, cmp.Or(p.screen.Width, usualWidth)-len(indent))
	}
	for i, part := range parts {
		if i > 0 {
			before = indent
		}
		p.text.WriteString(strings.TrimRight(before+p.screen.paint(l.mark, part), " ") + "\n")
	}
}

// section writes lines with a name in the margin; without lines, nothing.
func (p *page) section(name string, lines ...line) {
	for i, l := range lines {
		label := strings.Repeat(" ", margin)
		if i == 0 {
			label = fmt.Sprintf("%-*s", margin, name)
		}
		p.write(label, l)
	}
}

// table writes rows, the head first, each as its mark says.
func (p *page) table(cells [][]string, marks []mark) {
	for i, l := range rows(cells) {
		p.write("", l.as(marks[i]))
	}
}

func (p *page) String() string { return p.text.String() }
