package view

import (
	"fmt"
	"strings"
	"unicode"

	"netvmd/internal/words"
)

// Bounds of what is shown, so that nothing from outside makes a menu that nobody can use.
const (
	longestRow  = 118 // in columns, without the mark of a cut: some 850 pixels of a usual font
	longestText = 480 // likewise, of a sentence that is wrapped
	wrapWidth   = 60  // in columns
)

// separator is the line between two sections.
var separator = []Row{{Separator: true}}

// indent stands before what belongs to the row above.
const indent = "    "

// say is a row to read. It is not greyed out, as what is read most must be easy to read; a click does nothing.
func say(format string, args ...any) Row { return Row{Text: safe(fmt.Sprintf(format, args...))} }

// under is a row with a submenu, or a hidden one when the submenu would be empty.
func under(heading string, rows []Row) Row {
	if len(rows) == 0 {
		return Row{}
	}
	return Row{Text: safe(heading), Rows: rows}
}

// places gives rows so many places, of which those left over are hidden.
func places(rows []Row, n int) []Row {
	out := make([]Row, n)
	copy(out, rows)
	return out
}

// each makes a row of each of the first most items; one more says how many are left out.
func each[T any](items []T, most int, row func(T) Row) []Row {
	shown := items[:min(len(items), most)]
	out := make([]Row, 0, len(shown)+1)
	for _, item := range shown {
		out = append(out, row(item))
	}
	return append(out, omitted(len(items)-len(shown))...)
}

// sentences is each for sentences, which take as many rows as they need.
func sentences(list []string, most int) []Row {
	shown := list[:min(len(list), most)]
	var out []Row
	for _, text := range shown {
		out = append(out, wrapped(text)...)
	}
	return append(out, omitted(len(list)-len(shown))...)
}

// omitted says how many were left out, if any were.
func omitted(n int) []Row {
	if n == 0 {
		return nil
	}
	return []Row{say("and %d more", n)}
}

// wrapped is a sentence on as many rows as it needs. All but the first are indented, so that several stay apart.
func wrapped(text string) []Row {
	text = words.Clip(words.Harmless(text), longestText)
	var out []Row
	for i, line := range words.Wrap(text, wrapWidth-len(indent)) {
		if i > 0 {
			line = indent + line
		}
		out = append(out, say("%s", line))
	}
	return out
}

// safe makes a text fit to be shown in a menu, whatever was put into it. It is never empty, as such a row would be hidden.
func safe(text string) string {
	if strings.TrimSpace(text) == "" {
		return blank
	}
	return words.Clip(settled(words.Harmless(text)), longestRow)
}

// blank stands for a text from outside with nothing in it.
const blank = "–"

// leftToRightMark is U+200E. It has no shape.
const leftToRightMark = '\u200e'

// settled puts the words after a quoted name where they belong when the name ends in a right-to-left script. By the Unicode
// bidirectional algorithm (UAX 9, N1), marks and digits behind such letters would be drawn to the left of the name.
func settled(text string) string {
	if strings.IndexFunc(text, rightToLeft) < 0 {
		return text
	}
	var b strings.Builder
	turned := false
	for _, r := range text {
		b.WriteRune(r)
		turned = turned || rightToLeft(r)
		if turned && r == '"' {
			b.WriteRune(leftToRightMark)
			turned = false
		}
	}
	return b.String()
}

// firstRightToLeft is where Unicode's right-to-left scripts begin, with Hebrew.
const firstRightToLeft = 0x590

func rightToLeft(r rune) bool {
	return r >= firstRightToLeft && unicode.In(r, unicode.Hebrew, unicode.Arabic, unicode.Syriac, unicode.Thaana,
		unicode.Nko, unicode.Samaritan, unicode.Mandaic, unicode.Adlam, unicode.Hanifi_Rohingya, unicode.Mende_Kikakui)
}
