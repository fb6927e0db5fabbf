package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// contract is the introspection XML; a comment in it is about the members between it and the next one.
const contract = "dbus/org.qubes_os.NetVM1.xml"

// member is a property, method or signal of the contract, with its comment.
type member struct {
	Name string `xml:"name,attr"`
	Type string `xml:"type,attr"`
	Args []arg  `xml:"arg"`
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
	return membersOf(text, kind)
}

// group is what stands under one comment of the contract.
type group struct {
	comment string
	terms   []string // of the members of one kind
}

func membersOf(text []byte, kind string) (string, error) {
	groups, err := groupsOf(xml.NewDecoder(bytes.NewReader(text)), kind)
	if err != nil {
		return "", fmt.Errorf("%s: %w", contract, err)
	}
	var b strings.Builder
	for _, g := range groups {
		if len(g.terms) > 0 {
			b.WriteString(definition(strings.Join(g.terms, ", "), plain(g.comment)))
		}
	}
	return b.String(), nil
}

// groupsOf reads the members of one kind that are netvmd's own.
func groupsOf(d *xml.Decoder, kind string) (groups []group, err error) {
	for ours := false; ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return groups, nil
		}
		if err != nil {
			return nil, err
		}
		switch t := token.(type) {
		case xml.Comment:
			groups = append(groups, group{comment: strings.Join(strings.Fields(string(t)), " ")})
		case xml.StartElement:
			if t.Name.Local == "interface" {
				ours = slices.Contains(t.Attr, xml.Attr{Name: xml.Name{Local: "name"}, Value: "org.qubes_os.NetVM1"})
			}
			if !ours || t.Name.Local != kind {
				continue
			}
			var m member
			if err := d.DecodeElement(&m, &t); err != nil {
				return nil, err
			}
			if len(groups) == 0 {
				return nil, fmt.Errorf("%s %s has no comment", kind, m.Name)
			}
			last := &groups[len(groups)-1]
			last.terms = append(last.terms, m.term())
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
