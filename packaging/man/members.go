package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// contract is the introspection XML; a comment in it is about the members between it and the next one.
const contract = "dbus/org.qubes_os.NetVM1.xml"

// member is a property, method or signal of the contract, with its comment.
type member struct {
	XMLName xml.Name
	Name    string `xml:"name,attr"`
	Type    string `xml:"type,attr"`
	Args    []arg  `xml:"arg"`
}

type arg struct {
	Name      string `xml:"name,attr"`
	Type      string `xml:"type,attr"`
	Direction string `xml:"direction,attr"`
}

// members writes what the contract says of its properties, methods or signals: the kind is the element's name.
func members(kind string) (string, error) {
	text, err := os.ReadFile(contract)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	var terms []string // of one kind and under one comment
	comment, ours := "", false
	flush := func() {
		if len(terms) > 0 {
			b.WriteString(definition(strings.Join(terms, ", "), plain(comment)))
		}
		terms = nil
	}
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			flush()
			return b.String(), nil
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", contract, err)
		}
		switch t := token.(type) {
		case xml.Comment:
			flush()
			comment = strings.Join(strings.Fields(string(t)), " ")
		case xml.StartElement:
			if t.Name.Local == "interface" {
				ours = t.Attr[0].Value == "org.qubes_os.NetVM1"
			}
			if !ours || t.Name.Local != kind {
				continue
			}
			var m member
			if err := d.DecodeElement(&m, &t); err != nil {
				return "", fmt.Errorf("%s: %s: %w", contract, kind, err)
			}
			terms = append(terms, m.term())
		}
	}
}

// term is how a member is written down: Vifs aa{sv}, or Refresh() → b changed.
func (m member) term() string {
	if m.Type != "" {
		return "**" + m.Name + "** " + plain(m.Type)
	}
	var in, out []string
	for _, a := range m.Args {
		word := plain(a.Type) + " *" + a.Name + "*"
		if a.Direction == "out" {
			out = append(out, word)
		} else {
			in = append(in, word)
		}
	}
	term := "**" + m.Name + "**(" + strings.Join(in, ", ") + ")"
	if len(out) > 0 {
		term += " → " + strings.Join(out, ", ")
	}
	return term
}
