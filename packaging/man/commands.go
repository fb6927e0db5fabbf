package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// manual is what netvmctl says of itself when it is built with the tag manual.
type manual struct {
	Flags    []option // of every command
	Commands []command
}

// command is one command of netvmctl.
type command struct {
	Use     string // the whole line: "netvmctl dns set ADDRESS..."
	Short   string
	Long    string
	Example string
	Flags   []option
}

// option is a flag of a program; the value is the word for its value, "" without one.
type option struct{ Name, Shorthand, Value, Usage, Default string }

// commands writes a section for every command of netvmctl, behind one with the flags that all have.
func commands(ctx context.Context) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "run", "-tags", "manual", "./cmd/netvmctl")
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask netvmctl for its commands: %w: %s", err, complaints.String())
	}
	var m manual
	d := json.NewDecoder(bytes.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return "", fmt.Errorf("netvmctl's commands: %w", err)
	}
	var b strings.Builder
	b.WriteString("# OPTIONS\nThese belong to every command.\n\n")
	writeOptions(&b, m.Flags)
	b.WriteString("# COMMANDS\n")
	for _, c := range m.Commands {
		writeCommand(&b, c)
	}
	return b.String(), nil
}

func writeCommand(b *strings.Builder, c command) {
	fmt.Fprintf(b, "### %s\n", plain(c.Use))
	if c.Long == "" {
		fmt.Fprintf(b, "%s\n\n", sentence(c.Short))
	} else {
		b.WriteString(prose(c.Long))
	}
	writeOptions(b, c.Flags)
	if c.Example != "" {
		fmt.Fprintf(b, "Example:\n\n```\n%s\n```\n\n", strings.Trim(c.Example, "\n"))
	}
}

func writeOptions(b *strings.Builder, options []option) {
	for _, o := range options {
		term := "**--" + o.Name + "**"
		if o.Shorthand != "" {
			term = "**-" + o.Shorthand + "**, " + term
		}
		if o.Value != "" {
			term += " *" + o.Value + "*"
		}
		meaning := sentence(o.Usage)
		if o.Default != "" {
			meaning += " Default: " + plain(o.Default) + "."
		}
		b.WriteString(definition(term, meaning))
	}
}
