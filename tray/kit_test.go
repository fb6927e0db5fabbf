package tray

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"netvmd/tray/view"
)

// fakeKit is a toolkit with systray's limits: a row stays where it was made, for ever; what once had a submenu keeps its
// arrow, so that it must not be seen without one; a separator is always seen.
type fakeKit struct {
	t *testing.T

	mu    sync.Mutex
	calls []string
	rows  []*fakeRow
	icon  string
	title string
	drawn chan func() // what Drawn was given
}

func newFakeKit(t *testing.T) *fakeKit { return &fakeKit{t: t, drawn: make(chan func(), 1)} }

func (k *fakeKit) did(format string, args ...any) {
	k.calls = append(k.calls, fmt.Sprintf(format, args...))
}

// taken are the calls since it was last asked.
func (k *fakeKit) taken() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	calls := k.calls
	k.calls = nil
	return calls
}

func (k *fakeKit) Icon(png []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.icon = string(png)
	k.did("icon %s", png)
}

func (k *fakeKit) Title(text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.title = text
	k.did("title %s", text)
}

func (k *fakeKit) Append(under item, text string) item {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.did("append %s", text)
	row := &fakeRow{kit: k, text: text, shown: true, clicked: make(chan struct{})}
	if under == nil {
		k.rows = append(k.rows, row)
	} else {
		parent := under.(*fakeRow)
		parent.rows = append(parent.rows, row)
	}
	return row
}

func (k *fakeKit) Separator() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.did("separator")
	k.rows = append(k.rows, nil)
}

func (k *fakeKit) Drawn(f func()) { k.drawn <- f }

// fakeRow is an item.
type fakeRow struct {
	kit      *fakeKit
	text     string
	disabled bool
	shown    bool
	clicked  chan struct{}
	rows     []*fakeRow
}

func (r *fakeRow) Set(text string, disabled bool) {
	r.kit.mu.Lock()
	defer r.kit.mu.Unlock()
	r.kit.did("set %s", text)
	r.text, r.disabled, r.shown = text, disabled, true
}

func (r *fakeRow) Hide() {
	r.kit.mu.Lock()
	defer r.kit.mu.Unlock()
	r.kit.did("hide %s", r.text)
	r.shown = false
}

func (r *fakeRow) Clicked() <-chan struct{} { return r.clicked }

// String is the menu as a person sees it.
func (k *fakeKit) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.draw(k.rows, "")
}

func (k *fakeKit) draw(rows []*fakeRow, indent string) string {
	var out strings.Builder
	for _, r := range rows {
		switch {
		case r == nil:
			out.WriteString(indent + "---\n")
			continue
		case !r.shown:
			continue
		}
		below := k.draw(r.rows, indent+"  ")
		if len(r.rows) > 0 && below == "" {
			k.t.Errorf("%q has the arrow of a submenu that is empty", r.text)
		}
		out.WriteString(line(indent, r.text, r.disabled) + below)
	}
	return out.String()
}

// drawn is how rows are to be seen.
func drawn(rows []view.Row, indent string) string {
	var out strings.Builder
	for _, r := range rows {
		switch {
		case r.Separator:
			out.WriteString(indent + "---\n")
		case r.Text != "":
			out.WriteString(line(indent, r.Text, r.Disabled) + drawn(r.Rows, indent+"  "))
		}
	}
	return out.String()
}

func line(indent, text string, disabled bool) string {
	if disabled {
		text = "(" + text + ")"
	}
	return indent + text + "\n"
}

// find is the row with a text.
func (k *fakeKit) find(text string) *fakeRow {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.rows {
		if r != nil && r.shown && r.text == text {
			return r
		}
	}
	k.t.Fatalf("no row %q is shown", text)
	return nil
}
