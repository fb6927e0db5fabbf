// Command man makes the manual pages' Markdown: it fills in, where a page of this folder asks for it, what the programs,
// the configuration and the bus's contract say of themselves. `make man` turns the result into roff.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

// patience is enough to compile netvmctl, which is asked for its commands.
const patience = 5 * time.Minute

const usage = `Usage: go run ./packaging/man -bin DIR -out DIR [-version VERSION]

It runs in the folder of the project, and asks the programs in the folder -bin for their flags.

`

func main() {
	flags := flag.NewFlagSet("man", flag.ExitOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	programs := flags.String("bin", "", "`folder` of the built programs")
	out := flags.String("out", "", "`folder` for the pages")
	version := flags.String("version", "devel", "the release that the pages belong to")
	_ = flags.Parse(os.Args[1:]) // ExitOnError
	if err := run(*programs, *out, *version); err != nil {
		fmt.Fprintln(os.Stderr, "man:", err)
		os.Exit(1)
	}
}

// run renders every page: packaging/man/netvmd.8.md becomes netvmd.8.md in the folder out.
func run(programs, out, version string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pages, err := filepath.Glob("packaging/man/*.md")
	if err != nil || len(pages) == 0 {
		return fmt.Errorf("no pages in packaging/man: run this in the folder of the project")
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	words := template.FuncMap{
		"version": func() string { return version },
		"flags": func(program string) (string, error) {
			return programFlags(ctx, filepath.Join(programs, program))
		},
		"commands": func() (string, error) { return commands(ctx) },
		"keys":     keys,
		"members":  members,
	}
	for _, page := range pages {
		text, err := render(page, words)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, filepath.Base(page)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func render(page string, words template.FuncMap) (string, error) {
	t, err := template.New(filepath.Base(page)).Funcs(words).ParseFiles(page)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, nil)
	return b.String(), err
}
