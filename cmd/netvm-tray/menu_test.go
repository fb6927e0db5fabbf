package main

import (
	"cmp"
	"fmt"
	"image"
	"slices"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"

	"netvmd/internal/lab/desktop"
	"netvmd/tray/view"
	"netvmd/tray/view/examples"
)

// rows are the view's rows as the toolkit shows them: without those that are hidden.
func rows(menu []view.Row) []desktop.Item {
	var out []desktop.Item
	for _, r := range menu {
		if r.Text != "" || r.Separator {
			out = append(out, desktop.Item{Text: r.Text, Enabled: !r.Disabled, Separator: r.Separator, Items: rows(r.Rows)})
		}
	}
	return out
}

func words(shown view.Shown) string { return desktop.Item{Items: rows(shown.Menu)}.String() }

// reads waits until the menu's words are those of an example.
func (s *scene) reads(known view.Known) {
	s.t.Helper()
	var want, got string
	err := s.AwaitMenu(s.ctx, func(menu desktop.Item) bool {
		want, got = words(shown(known)), menu.String()
		return got == want
	})
	if err != nil {
		s.t.Errorf("the menu's words (-want +got):\n%s", diff.Diff(want, got))
	}
}

// doing tells whether an example is of something that netvmd does not publish: an action, or what is missing for one.
func doing(known view.Known) bool {
	return known.Doing != view.None || known.Outcome != "" || len(known.Hindered) > 0
}

// read is how much an example knows of what is read while the menu is open.
func read(known view.Known) int { return len(known.Routes) + len(known.Traffic) }

func TestTheMenuSaysWhatTheViewSaysInEverySituation(t *testing.T) {
	s, icon := docked(t, desktop.Trayer, 22)
	all := slices.DeleteFunc(examples.All(), func(e examples.Example) bool { return doing(e.Known) })
	// What was read while the menu was open is remembered, so these come last.
	slices.SortStableFunc(all, func(a, b examples.Example) int { return cmp.Compare(read(a.Known), read(b.Known)) })
	for _, e := range all {
		t.Run(e.Name, func(t *testing.T) {
			s := s.in(t)
			s.become(e.Known)
			s.must(s.Screen.AwaitTitle(s.ctx, shown(e.Known).Title))
			if read(e.Known) > 0 {
				_, err := s.OpenMenu(s.ctx, icon)
				s.must(err)
				defer func() { s.must(s.CloseMenu(s.ctx)) }()
			}
			s.reads(e.Known)
		})
	}
}

func TestAClickOpensTheMenuWithWordsThatCanBeRead(t *testing.T) {
	for kind, cases := range map[desktop.Kind]map[string][]string{
		desktop.Trayer: {
			"portal":   {"Captive portal", "Log in to the captive portal"},
			"offline":  {"Offline", "No uplink is active"},
			"300-vifs": {"300 vifs", "Copy a diagnostic report"},
		},
		desktop.Tint2: {
			"wifi-good": {"Online through Wi-Fi", "10.139.1.1", "198.51.100.1", "10.137.0.11", "Refresh DNS", "Quit"},
		},
	} {
		t.Run(string(kind), func(t *testing.T) {
			s, icon := docked(t, kind, 24)
			for name, says := range cases {
				t.Run(name, func(t *testing.T) {
					s := s.in(t)
					s.become(example(t, name))
					s.reads(example(t, name))
					s.canBeRead(icon, says)
				})
			}
		})
	}
}

// canBeRead opens the menu and looks for words in it, until it is drawn.
func (s *scene) canBeRead(icon desktop.Window, says []string) {
	s.t.Helper()
	menu, err := s.OpenMenu(s.ctx, icon)
	s.must(err)
	var text string
	missing := func(word string) bool { return !strings.Contains(text, word) }
	picture, err := s.Screen.AwaitPicture(s.ctx, menu.Place, fmt.Sprintf("a menu with %q", says), func(picture *image.RGBA) bool {
		var err error
		text, err = s.Read(s.ctx, picture)
		s.must(err)
		return !slices.ContainsFunc(says, missing)
	})
	if err != nil {
		s.keep(picture)
		s.t.Errorf("%v; what can be read:\n%s", err, text)
	}
	s.must(s.CloseMenu(s.ctx))
}
