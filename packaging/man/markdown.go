package main

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	special = regexp.MustCompile(`[*_\[\]<>]`)
	code    = regexp.MustCompile("`[^`]*`")
)

// plain writes words that know nothing of Markdown so that it shows them as they are. What stands in backquotes is code
// there as here.
func plain(text string) string {
	var b strings.Builder
	at := 0
	for _, span := range code.FindAllStringIndex(text, -1) {
		b.WriteString(special.ReplaceAllString(text[at:span[0]], `\$0`))
		b.WriteString(text[span[0]:span[1]])
		at = span[1]
	}
	b.WriteString(special.ReplaceAllString(text[at:], `\$0`))
	return b.String()
}

// definition is a term with what it means.
func definition(term, meaning string) string { return fmt.Sprintf("%s\n: %s\n\n", term, meaning) }

// prose writes a command's help: paragraphs, and indented blocks as they are.
func prose(text string) string {
	var b strings.Builder
	for _, block := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(block, " ") || strings.HasPrefix(block, "\t") {
			fmt.Fprintf(&b, "```\n%s\n```\n\n", block)
			continue
		}
		fmt.Fprintf(&b, "%s\n\n", plain(block))
	}
	return b.String()
}

// sentence makes a flag's or a command's summary one.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	return plain(strings.TrimRight(text, ".")) + "."
}
