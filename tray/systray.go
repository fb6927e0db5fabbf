package tray

import "C"

import "github.com/getlantern/systray"

// systrayKit is the toolkit for real. The library does all but SetTitle on the main thread, later and in order.
type systrayKit struct {
	rows int // of the menu itself, separators included
}

// Icon ignores what is no picture, which would end the library.
func (k *systrayKit) Icon(png []byte) {
	if len(png) > 0 {
		systray.SetIcon(png)
	}
}

// Title goes the long way, as the library would set it on the caller's thread.
func (k *systrayKit) Title(text string) { onMainThread(func() { systray.SetTitle(text) }) }

func (k *systrayKit) Append(under item, text string) item {
	if parent, is := under.(*systrayItem); is {
		child := &systrayItem{row: parent.row.AddSubMenuItem(text, ""), text: text}
		child.path = append(append(child.path, parent.path...), C.int(parent.rows))
		parent.rows++
		return child
	}
	top := &systrayItem{row: systray.AddMenuItem(text, ""), text: text, path: []C.int{C.int(k.rows)}}
	k.rows++
	return top
}

func (k *systrayKit) Separator() {
	systray.AddSeparator()
	k.rows++
}

func (k *systrayKit) Drawn(f func()) { onMainThread(f) }

// systrayItem is one row.
type systrayItem struct {
	row  *systray.MenuItem
	text string
	path []C.int // its place, from the top level down
	rows int     // of its submenu
}

// Set makes as few calls as it can: each sends the whole row, and shows it.
func (i *systrayItem) Set(text string, disabled bool) {
	moved := disabled != i.row.Disabled()
	if text != i.text || !moved {
		i.text = text
		i.row.SetTitle(text)
	}
	switch {
	case !moved:
	case disabled:
		i.row.Disable()
	default:
		i.row.Enable()
	}
}

// Hide does without the library's own, which leaks memory at each call.
func (i *systrayItem) Hide() { hideRow(i.path) }

func (i *systrayItem) Clicked() <-chan struct{} { return i.row.ClickedCh }
