package desktop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	godbus "github.com/godbus/dbus/v5"
)

// Item is one row of a menu, as its program tells it over the session bus.
type Item struct {
	Text      string
	Enabled   bool
	Separator bool
	Items     []Item // of its submenu, without those that are hidden
}

// String is the menu as text: a row a line, submenus indented, what cannot be clicked in parentheses.
func (i Item) String() string {
	var b strings.Builder
	for _, row := range i.Items {
		row.write(&b, "")
	}
	return b.String()
}

func (i Item) write(b *strings.Builder, indent string) {
	switch {
	case i.Separator:
		b.WriteString(indent + "---\n")
	case i.Enabled:
		b.WriteString(indent + i.Text + "\n")
	default:
		b.WriteString(indent + "(" + i.Text + ")\n")
	}
	for _, row := range i.Items {
		row.write(b, indent+"    ")
	}
}

const (
	menuInterface = "com.canonical.dbusmenu"
	// menuFolder is where libayatana-appindicator keeps the menus of a program's icons.
	menuFolder = "/org/ayatana/NotificationItem"
	busName    = "org.freedesktop.DBus"
)

// Menu reads the menu of the one program on the session bus that has one: the words that the toolkit was given, exactly,
// and without what is hidden. The root's Items are the rows.
func (d *Desktop) Menu(ctx context.Context) (menu Item, err error) {
	if d.Bus == nil {
		return Item{}, errors.New("desktop: there is no session bus to read a menu from")
	}
	conn, err := d.Bus.Connect()
	if err != nil {
		return Item{}, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	object, err := findMenu(ctx, conn)
	if err != nil {
		return Item{}, err
	}
	return readMenu(ctx, object)
}

func readMenu(ctx context.Context, object godbus.BusObject) (Item, error) {
	var revision uint32
	var root layout
	// Item 0 is the root, a depth of -1 is all of it, and no names are all properties: libdbusmenu, dbus-menu.xml.
	if err := object.CallWithContext(ctx, menuInterface+".GetLayout", 0, int32(0), int32(-1), []string{}).Store(&revision, &root); err != nil {
		return Item{}, fmt.Errorf("desktop: read the menu: %w", err)
	}
	return root.item()
}

// AwaitMenu waits until the menu satisfies; without one it goes on waiting.
func (d *Desktop) AwaitMenu(ctx context.Context, holds func(Item) bool) error {
	_, err := await(ctx, "a menu with other words", func() (bool, bool, error) {
		menu, err := d.Menu(ctx)
		return true, err == nil && holds(menu), nil
	})
	return err
}

// findMenu finds the menu's object.
func findMenu(ctx context.Context, conn *godbus.Conn) (godbus.BusObject, error) {
	var names []string
	if err := conn.BusObject().CallWithContext(ctx, busName+".ListNames", 0).Store(&names); err != nil {
		return nil, fmt.Errorf("desktop: list who is on the session bus: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, ":") || slices.Contains(conn.Names(), name) {
			continue
		}
		var xml string
		introspect := conn.Object(name, menuFolder).CallWithContext(ctx, busName+".Introspectable.Introspect", 0)
		if introspect.Store(&xml) != nil { // it has no such object
			continue
		}
		_, rest, ok := strings.Cut(xml, `<node name="`)
		if child, _, whole := strings.Cut(rest, `"`); ok && whole {
			return conn.Object(name, godbus.ObjectPath(menuFolder+"/"+child+"/Menu")), nil
		}
	}
	return nil, errors.New("desktop: nobody on the session bus has a menu")
}

// layout is a menu's item on the bus.
type layout struct {
	ID         int32
	Properties map[string]godbus.Variant
	Children   []godbus.Variant
}

// item understands a layout; what is not said has a default: libdbusmenu, dbus-menu.xml.
func (l layout) item() (Item, error) {
	i := Item{Enabled: true}
	if err := errors.Join(said(l, "label", &i.Text), said(l, "enabled", &i.Enabled)); err != nil {
		return i, err
	}
	i.Separator = l.Properties["type"].Value() == "separator"
	i.Text = unescape(i.Text)
	for _, v := range l.Children {
		var child layout
		if err := godbus.Store([]any{v.Value()}, &child); err != nil {
			return i, fmt.Errorf("desktop: a child of menu item %d: %w", l.ID, err)
		}
		if child.Properties["visible"].Value() == false {
			continue
		}
		row, err := child.item()
		if err != nil {
			return i, err
		}
		i.Items = append(i.Items, row)
	}
	return i, nil
}

// said reads a property into a place, if it is there.
func said[T any](l layout, name string, at *T) error {
	v, is := l.Properties[name]
	if !is {
		return nil
	}
	value, is := v.Value().(T)
	if !is {
		return fmt.Errorf("desktop: %s of menu item %d is %s", name, l.ID, v)
	}
	*at = value
	return nil
}

// unescape takes away what keeps underscores from being taken for mnemonics: two are one.
func unescape(label string) string { return strings.ReplaceAll(label, "__", "_") }
