package nmhook

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"
)

// defaultBusSocket is the system bus's, D-Bus specification, "Well-known Message Bus Instances".
const defaultBusSocket = "/run/dbus/system_bus_socket"

// busSocket finds the socket in DBUS_SYSTEM_BUS_ADDRESS; "" if the address is of another kind.
func busSocket(address string) string {
	if address == "" {
		return defaultBusSocket
	}
	first, _, _ := strings.Cut(address, ";")
	options, ok := strings.CutPrefix(first, "unix:")
	if !ok {
		return ""
	}
	for _, option := range strings.Split(options, ",") {
		if value, ok := strings.CutPrefix(option, "path="); ok {
			path, err := url.PathUnescape(value) // the specification's escaping is the same
			if err != nil {
				return ""
			}
			return path
		}
	}
	return ""
}

// socketWatch wakes whoever waits for the bus as soon as its socket appears. Without it, the pauses between
// the attempts do the same, later.
type socketWatch struct {
	watches  *watches
	appeared chan struct{}
}

// watchBusSocket returns nil, after a word in the log, if the socket cannot be watched.
func watchBusSocket(log *slog.Logger) *socketWatch {
	path := busSocket(os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"))
	if path == "" {
		return nil
	}
	w, err := newWatches(path)
	if err == nil {
		err = w.arm()
	}
	if err != nil {
		log.Warn("the system bus's socket is not watched", "error", err)
		return nil
	}
	s := &socketWatch{watches: w, appeared: make(chan struct{}, 1)}
	go func() {
		for w.wait() == nil { // an error: closed
			select {
			case s.appeared <- struct{}{}:
			default:
			}
		}
	}()
	return s
}

// pause waits for a time or for the socket, and tells whether it was the socket.
func (s *socketWatch) pause(ctx context.Context, d time.Duration) bool {
	var appeared <-chan struct{}
	if s != nil {
		appeared = s.appeared
		// The folder may be another one since; if that fails, the time is what is left to wait for.
		if err := s.watches.arm(); err != nil {
			appeared = nil
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-appeared:
		return true
	}
	return false
}

func (s *socketWatch) close(log *slog.Logger) {
	if s == nil {
		return
	}
	if err := s.watches.inbox.Close(); err != nil {
		log.Debug("close inotify", "error", err)
	}
}
