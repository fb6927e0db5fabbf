package desktop

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/res"
	"github.com/jezek/xgb/xproto"

	"netvmd/internal/lab"
)

// The screen's size in pixels: a menu of some thirty rows fits.
const (
	width  = 1024
	height = 900
)

// Screen is the X server's screen, seen through a connection of our own.
type Screen struct {
	Display string // such as ":0"

	conn *xgb.Conn
	root xproto.Window
}

// startX starts Xvfb at a free display and connects to it. It listens at an abstract socket only, of which the kernel keeps
// a list a network namespace, and makes no lock file: so it neither meets a server of the machine nor leaves anything.
func (d *Desktop) startX(ctx context.Context) error {
	xgb.Logger.SetOutput(io.Discard) // it complains that there is no cookie; none is needed
	number, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("desktop: start Xvfb: %w", err)
	}
	defer func() { _ = number.Close() }() // it was read
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "Xvfb", "-displayfd", "3", "-screen", "0",
		fmt.Sprintf("%dx%dx24", width, height), "-nolisten", "tcp", "-nolisten", "unix", "-nolock", "-noreset", "-ac")
	cmd.ExtraFiles = []*os.File{in}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	d.server, err = lab.StartDaemon(ctx, d.label("Xvfb"), "", cmd)
	if err = errors.Join(err, in.Close()); err != nil {
		return err
	}
	if err := number.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("desktop: start Xvfb: %w", err)
	}
	text, err := io.ReadAll(number) // to its end: the server closes it when it has said its number
	if err != nil || len(text) == 0 {
		return fmt.Errorf("desktop: Xvfb names no display: %w; %s", err, strings.Join(d.server.Log(), ""))
	}
	d.Screen, err = openScreen(ctx, ":"+strings.TrimSpace(string(text)))
	return err
}

// KillX kills the X server, as the end of a session does.
func (d *Desktop) KillX(ctx context.Context) error { return d.server.Stop(ctx, syscall.SIGKILL) }

// SignalX sends the X server a signal: SIGSTOP has it answer nobody until SIGCONT.
func (d *Desktop) SignalX(sig syscall.Signal) error { return d.server.Signal(sig) }

func openScreen(ctx context.Context, display string) (*Screen, error) {
	socket, err := (&net.Dialer{}).DialContext(ctx, "unix", "@/tmp/.X11-unix/X"+display[1:])
	if err != nil {
		return nil, fmt.Errorf("display %s: %w", display, err)
	}
	conn, err := xgb.NewConnNet(socket)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("display %s: %w", display, err), socket.Close())
	}
	s := &Screen{Display: display, conn: conn, root: xproto.Setup(conn).DefaultScreen(conn).Root}
	if err := res.Init(conn); err != nil {
		return nil, fmt.Errorf("display %s: %w", display, err)
	}
	// tint2 waits seconds for a window manager to say how many desktops there are.
	return s, errors.Join(s.declare("_NET_NUMBER_OF_DESKTOPS", 1), s.declare("_NET_CURRENT_DESKTOP", 0))
}

func (s *Screen) close() { s.conn.Close() }

// declare sets a property of the root window.
func (s *Screen) declare(name string, value uint32) error {
	atom, err := s.atom(name)
	if err != nil {
		return err
	}
	data := make([]byte, 4)
	xgb.Put32(data, value)
	err = xproto.ChangePropertyChecked(s.conn, xproto.PropModeReplace, s.root, atom, xproto.AtomCardinal, 32, 1, data).Check()
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

func (s *Screen) atom(name string) (xproto.Atom, error) {
	reply, err := xproto.InternAtom(s.conn, false, uint16(len(name)), name).Reply()
	if err != nil {
		return 0, fmt.Errorf("atom %s: %w", name, err)
	}
	return reply.Atom, nil
}

// Window is a window as it was when it was found.
type Window struct {
	ID    uint32
	Place image.Rectangle // on the screen
	Name  string          // _NET_WM_NAME, or WM_NAME
	Seen  bool            // mapped, as all that it is in
}

// windows lists the windows that have a property, in whatever they are.
func (s *Screen) windows(property string) ([]Window, error) {
	atom, err := s.atom(property)
	if err != nil {
		return nil, err
	}
	var found []Window
	for open := []xproto.Window{s.root}; len(open) > 0; open = open[1:] {
		tree, err := xproto.QueryTree(s.conn, open[0]).Reply()
		if vanished(err) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("list the windows: %w", err)
		}
		open = append(open, tree.Children...)
		has, err := xproto.GetProperty(s.conn, false, open[0], atom, xproto.GetPropertyTypeAny, 0, 0).Reply()
		if err != nil || has.Type == xproto.AtomNone {
			continue // it has just gone, or it is no such window
		}
		if w, err := s.look(open[0]); err == nil {
			found = append(found, w)
		} else if !vanished(err) {
			return nil, err
		}
	}
	return found, nil
}

// vanished tells whether a request failed because the window has just gone.
func vanished(err error) bool {
	var window xproto.WindowError
	var drawable xproto.DrawableError
	return errors.As(err, &window) || errors.As(err, &drawable)
}

// look reads what is known of a window.
func (s *Screen) look(id xproto.Window) (Window, error) {
	w := Window{ID: uint32(id)}
	attributes, err := xproto.GetWindowAttributes(s.conn, id).Reply()
	if err != nil {
		return w, err
	}
	size, err := xproto.GetGeometry(s.conn, xproto.Drawable(id)).Reply()
	if err != nil {
		return w, err
	}
	at, err := xproto.TranslateCoordinates(s.conn, id, s.root, 0, 0).Reply()
	if err != nil {
		return w, err
	}
	w.Seen = attributes.MapState == xproto.MapStateViewable
	corner := image.Pt(int(at.DstX), int(at.DstY))
	w.Place = image.Rectangle{corner, corner.Add(image.Pt(int(size.Width), int(size.Height)))}
	for _, name := range []string{"_NET_WM_NAME", "WM_NAME"} {
		if text, err := s.property(id, name); err == nil && len(text) > 0 {
			w.Name = string(text)
			break
		}
	}
	return w, nil
}

// property reads a property of bytes or words, at most 4 KiB of it.
func (s *Screen) property(id xproto.Window, name string) ([]byte, error) {
	atom, err := s.atom(name)
	if err != nil {
		return nil, err
	}
	reply, err := xproto.GetProperty(s.conn, false, id, atom, xproto.GetPropertyTypeAny, 0, 1024).Reply()
	if err != nil {
		return nil, err
	}
	return reply.Value, nil
}

// Picture is what is to be seen at a place of the screen, without colours that the screen has not: each pixel is opaque.
func (s *Screen) Picture(at image.Rectangle) (*image.RGBA, error) {
	at = at.Intersect(image.Rect(0, 0, width, height))
	if at.Empty() {
		return nil, fmt.Errorf("a picture of %v, which is not on the screen", at)
	}
	reply, err := xproto.GetImage(s.conn, xproto.ImageFormatZPixmap, xproto.Drawable(s.root), int16(at.Min.X), int16(at.Min.Y),
		uint16(at.Dx()), uint16(at.Dy()), ^uint32(0)).Reply()
	if err != nil {
		return nil, fmt.Errorf("a picture of %v: %w", at, err)
	}
	if len(reply.Data) < 4*at.Dx()*at.Dy() {
		return nil, fmt.Errorf("a picture of %v: %d bytes, not four a pixel", at, len(reply.Data))
	}
	picture := image.NewRGBA(image.Rect(0, 0, at.Dx(), at.Dy()))
	for i := range at.Dx() * at.Dy() { // Xvfb's own format at a depth of 24: blue, green, red, nothing
		p := reply.Data[4*i:]
		picture.SetRGBA(i%at.Dx(), i/at.Dx(), color.RGBA{R: p[2], G: p[1], B: p[0], A: 0xff})
	}
	return picture, nil
}

// Resources counts what a process keeps in the X server, by kind: windows, pixmaps, contexts and so on (the X-Resource
// extension).
func (s *Screen) Resources(pid int) (map[string]uint32, error) {
	clients, err := res.QueryClients(s.conn).Reply()
	if err != nil {
		return nil, fmt.Errorf("list the X clients: %w", err)
	}
	counts := map[string]uint32{}
	for _, c := range clients.Clients {
		owner, err := s.pid(c.ResourceBase)
		if err != nil || owner != pid {
			continue // it has just gone, or it is another's
		}
		kept, err := res.QueryClientResources(s.conn, c.ResourceBase).Reply()
		if err != nil {
			return nil, fmt.Errorf("desktop: X resources of process %d: %w", pid, err)
		}
		for _, t := range kept.Types {
			kind, err := xproto.GetAtomName(s.conn, t.ResourceType).Reply()
			if err != nil {
				return nil, fmt.Errorf("desktop: X resources of process %d: %w", pid, err)
			}
			counts[kind.Name] += t.Count
		}
	}
	if len(counts) == 0 {
		return nil, fmt.Errorf("process %d is no client of the X server", pid)
	}
	return counts, nil
}

// pid asks the server for the process behind a client.
func (s *Screen) pid(client uint32) (int, error) {
	reply, err := res.QueryClientIds(s.conn, 1, []res.ClientIdSpec{{Client: client, Mask: res.ClientIdMaskLocalClientPID}}).Reply()
	if err != nil {
		return 0, err
	}
	for _, id := range reply.Ids {
		if len(id.Value) > 0 {
			return int(id.Value[0]), nil
		}
	}
	return 0, nil
}
