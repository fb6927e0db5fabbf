package tray

import "netvmd/tray/view"

// toolkit is what the tray needs of a library for tray icons. All of it is done in the order in which it was asked for,
// later, and none of it can be asked about.
type toolkit interface {
	Icon(png []byte)                     // a picture that never changes afterwards
	Title(text string)                   // of the icon's window
	Append(under item, text string) item // shown, at the end of a row's submenu or, under nil, of the menu
	Separator()                          // at the end of the menu, for ever
	Drawn(f func())                      // calls f when all that was asked for before is done
}

// item is one row of a menu. It can be hidden, and neither removed nor moved.
type item interface {
	Set(text string, disabled bool) // shows it, too
	Hide()
	Clicked() <-chan struct{}
}

// pool keeps the rows that were made, and what was last sent of each, so that only differences are sent.
type pool struct {
	kit    toolkit
	listen func(*place) // told once of each place, when it has an action for the first time
	places []*place     // of the menu itself
}

// place is where a row is.
type place struct {
	item     item // nil: a separator
	text     string
	disabled bool
	hidden   bool
	listened bool
	action   view.Action // of the row that stands there now
	places   []*place    // of its submenu
}

// show brings the menu to these rows.
func (p *pool) show(rows []view.Row) { p.places = p.showRows(nil, p.places, rows) }

// showRows brings a menu, or the submenu of an item, to these rows.
func (p *pool) showRows(under item, places []*place, rows []view.Row) []*place {
	for i, row := range rows {
		if i == len(places) {
			places = append(places, p.make(under, row))
		}
		p.showRow(places[i], row)
	}
	for _, left := range places[min(len(rows), len(places)):] {
		left.hide()
	}
	return places
}

// make makes a place at the end.
func (p *pool) make(under item, row view.Row) *place {
	if row.Separator {
		p.kit.Separator()
		return &place{}
	}
	return &place{item: p.kit.Append(under, row.Text), text: row.Text}
}

// showRow brings one place to a row.
func (p *pool) showRow(at *place, row view.Row) {
	if at.item == nil {
		return
	}
	at.action = row.Action
	if row.Text == "" {
		at.hide()
		return
	}
	if at.hidden || at.text != row.Text || at.disabled != row.Disabled {
		at.item.Set(row.Text, row.Disabled)
		at.hidden, at.text, at.disabled = false, row.Text, row.Disabled
	}
	if row.Action != view.None && !at.listened {
		at.listened = true
		p.listen(at)
	}
	at.places = p.showRows(at.item, at.places, row.Rows)
}

// hide takes a row out of sight. What it has below stays as it was sent.
func (at *place) hide() {
	at.action = view.None
	if at.item == nil || at.hidden {
		return
	}
	at.item.Hide()
	at.hidden = true
}
