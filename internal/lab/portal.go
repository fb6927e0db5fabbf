package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
)

const (
	portalPath = "/check_network_status.txt"
	// shutPath is where the portal is asked to be in the way; asked anywhere else, by a form, it lets through.
	shutPath = "/shut"
	// headTimeout is for the head of a request; who asks stands on the same machine.
	headTimeout = 10 * time.Second
)

// Portal is the web server that NetworkManager asks to see how far it gets (NetworkManager.conf(5), connectivity.uri). While
// it is shut it answers as captive portals do, with another page; while it is open, with what NetworkManager wants to hear.
type Portal struct {
	server *http.Server
	ended  chan struct{}
	open   atomic.Bool
}

// portalHost is where NetworkManager asks: in the Internet, to which home and office both lead.
var portalHost = "http://" + Internet.String()

// servePortal starts a portal, open at first, on the network's router, where the Internet begins.
func (n *Network) servePortal() (*Portal, error) {
	var listener net.Listener
	err := n.Go(func() (err error) { // a socket belongs to the namespace in which it was made
		listener, err = net.Listen("tcp", netip.AddrPortFrom(Internet, 80).String()) //nolint:noctx // it does not wait
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network %s: portal: %w", n.Name, err)
	}
	p := &Portal{ended: make(chan struct{})}
	p.server = &http.Server{Handler: p, ReadHeaderTimeout: headTimeout}
	p.open.Store(true)
	go func() {
		defer close(p.ended)
		_ = p.server.Serve(listener) // until it is closed
	}()
	return p, nil
}

// ServeHTTP answers the check, and a browser.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		p.open.Store(r.URL.Path != shutPath)
	}
	switch {
	case p.open.Load():
		// What NetworkManager compares the beginning of the answer with (connectivity.response's default).
		_, _ = io.WriteString(w, "NetworkManager is online\n") // who asks may have gone
	case r.URL.Path == portalPath:
		http.Redirect(w, r, "/login", http.StatusFound)
	default:
		_, _ = io.WriteString(w, "<html><body>Welcome to the hotel. <form method=post><button>Log in</button></form></body></html>\n")
	}
}

// Shut puts the portal in the way, Open takes it away, as when somebody logs in. NetworkManager sees it when it looks next:
// see CheckConnectivity.
func (p *Portal) Shut() { p.open.Store(false) }

// Open undoes Shut.
func (p *Portal) Open() { p.open.Store(true) }

// Browse gets the page to which an address leads from a host, as a browser would.
func (h *Host) Browse(ctx context.Context, address string) (string, error) {
	dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = h.Go(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", fmt.Errorf("%s: browse: %w", h.Name, err)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("%s: browse: %w", h.Name, err)
	}
	defer func() { _ = answer.Body.Close() }() // it was read
	page, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", fmt.Errorf("%s: browse %s: %w", h.Name, address, err)
	}
	return string(page), nil
}

// close ends the server.
func (p *Portal) close() error {
	err := p.server.Close()
	<-p.ended
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// TurnPortal shuts or opens the portal from within the netvm, in whatever process of the lab, and has NetworkManager look.
func TurnPortal(ctx context.Context, shut bool) error {
	address := portalHost + "/"
	if shut {
		address = portalHost + shutPath
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return fmt.Errorf("portal: %w", err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("portal: %w", err)
	}
	return errors.Join(answer.Body.Close(), checkConnectivity(ctx, os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")))
}

// CheckConnectivity has NetworkManager look now how far it gets, as it does by itself every few minutes.
func (d *Domain) CheckConnectivity(ctx context.Context) error { return checkConnectivity(ctx, d.bus) }

func checkConnectivity(ctx context.Context, bus string) error {
	conn, err := connectBus(bus)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the call was answered
	ctx, cancel := context.WithTimeout(ctx, busTimeout)
	defer cancel()
	if err := conn.Object(nmName, nmPath).CallWithContext(ctx, nmName+".CheckConnectivity", 0).Err; err != nil {
		return fmt.Errorf("NetworkManager: check the connectivity: %w", err)
	}
	return nil
}
