package view_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

var update = flag.Bool("update", false, "write what is shown into the golden files")

func TestMain(m *testing.M) {
	flag.Parse()
	time.Local = time.UTC
	os.Exit(m.Run())
}

func TestEverySituationIsShownAsItsGoldenFileSays(t *testing.T) {
	for _, e := range examples.All() {
		t.Run(e.Name, func(t *testing.T) { golden(t, e.Name, text(view.Of(e.Known))) })
	}
}

// golden compares a text with testdata/<name>.txt.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", path, diff)
	}
}

// text shows all of it: hidden rows are left out, a row with a submenu ends in ›, one that is not to be clicked is in
// parentheses, and what a click does stands behind a bar. Marks without a shape are written out.
func text(s view.Shown) string {
	var b strings.Builder
	fmt.Fprintf(&b, "icon   %s\ntitle  %s\n\n", s.Icon, s.Title)
	write(&b, "", s.Menu)
	return strings.ReplaceAll(b.String(), "\u200e", `\u200e`)
}

func write(b *strings.Builder, indent string, rows []view.Row) {
	for _, r := range rows {
		text := r.Text
		switch {
		case r.Separator:
			text = "──────"
		case text == "":
			continue
		case r.Disabled:
			text = "(" + text + ")"
		case len(r.Rows) > 0:
			text += " ›"
		}
		if r.Action != view.None {
			text += " | " + string(r.Action)
		}
		fmt.Fprintf(b, "%s%s\n", indent, text)
		write(b, indent+"  · ", r.Rows)
	}
}
