package systembus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

const patience = 10 * time.Second

func TestTheBusSocketIsFoundInItsAddress(t *testing.T) {
	tests := map[string]struct {
		address string
		want    []string
	}{
		"no address":                {"", []string{defaultSocket}},
		"a path":                    {"unix:path=/run/bus", []string{"/run/bus"}},
		"a path beside a guid":      {"unix:guid=1,path=/run/bus", []string{"/run/bus"}},
		"an escaped path":           {"unix:path=/run/a%20bus", []string{"/run/a bus"}},
		"two":                       {"unix:path=/run/bus;tcp:host=x;unix:path=/run/bus2", []string{"/run/bus", "/run/bus2"}},
		"an abstract socket":        {"unix:abstract=/run/bus", []string{"@/run/bus"}},
		"another transport":         {"tcp:host=localhost", nil},
		"an escape that is none":    {"unix:path=/run/%zz", nil},
		"an address that is no use": {"unix", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := sockets(test.address); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// attempts runs Persist with a session that only tries to connect, and tells each error.
func attempts(t *testing.T, path string) <-chan error {
	t.Helper()
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+path)
	ctx, cancel := context.WithCancel(context.Background())
	tried, ended := make(chan error, 100), make(chan struct{})
	go func() {
		defer close(ended)
		Persist(ctx, slog.New(slog.NewTextHandler(io.Discard, nil)), func(ctx context.Context) (bool, error) {
			conn, err := dial(ctx)
			if err == nil {
				err = conn.Close()
			}
			tried <- err
			return false, fmt.Errorf("the attempt: %w", cmp.Or(err, errors.New("connected")))
		})
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return tried
}

// settled reads attempts until there is none for a while.
func settled(tried <-chan error) (n int) {
	for {
		select {
		case err := <-tried:
			if err == nil {
				return -1
			}
			n++
		case <-time.After(20 * firstPause):
			return n
		}
	}
}

func TestABusThatDoesNotExistIsWaitedForAndNotAskedFor(t *testing.T) {
	for name, folder := range map[string]string{"its folder is there": "", "nor does its folder": "/run/dbus"} {
		t.Run(name, func(t *testing.T) {
			root, err := os.MkdirTemp("", "bus") // a socket's path must be short, unix(7)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(root) })
			path := filepath.Join(root, folder, "socket")
			tried := attempts(t, path)
			if n := settled(tried); n != 2 {
				t.Errorf("%d attempts without a bus, want one before the socket is watched and one after", n)
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			for deadline := time.After(patience); ; {
				select {
				case err := <-tried:
					if err == nil {
						return
					}
				case <-deadline:
					t.Fatal("the socket appeared, and nobody noticed")
				}
			}
		})
	}
}
