package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

const notifySocket = netvmdDir + "/notify"

// StartNetvmd starts the daemon and waits until it says READY=1 (sd_notify(3)).
func (v *NetVM) StartNetvmd(ctx context.Context) error {
	if v.options.Netvmd == "" {
		return errors.New("netvm: no netvmd was given to the lab")
	}
	ready, err := awaitReady()
	if err != nil {
		return err
	}
	defer ready.close()
	cmd := exec.Command(v.options.Netvmd, "--config", configPath, "--log-level", "debug")
	cmd.Env = append(v.Environ(), "NOTIFY_SOCKET="+notifySocket)
	if v.netvmd, err = v.startDaemon(ctx, "netvmd", "", cmd); err != nil {
		return err
	}
	return v.netvmd.await(ctx, ready.seen, "say READY=1")
}

// KillNetvmd kills the daemon as a crash would.
func (v *NetVM) KillNetvmd(ctx context.Context) error { return v.netvmd.Stop(ctx, syscall.SIGKILL) }

// TermNetvmd asks the daemon to end, as a service manager would, and tells when its exit code is not 0.
func (v *NetVM) TermNetvmd(ctx context.Context) error {
	if err := v.netvmd.Stop(ctx, syscall.SIGTERM); err != nil {
		return err
	}
	if err := v.netvmd.ExitError(); err != nil {
		return fmt.Errorf("netvmd ended on SIGTERM: %w", err)
	}
	return nil
}

// Netvmd returns the daemon's process, nil before it was started.
func (v *NetVM) Netvmd() *Process { return v.netvmd }

// NetvmdConfig returns the path of the daemon's configuration; programs given to Run take it as --config.
func (v *NetVM) NetvmdConfig() string { return configPath }

// readiness listens for one READY=1.
type readiness struct {
	conn  *net.UnixConn
	seen  chan struct{}
	ended chan struct{}
}

func awaitReady() (*readiness, error) {
	if err := os.Remove(notifySocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("netvm: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("netvm: listen for sd_notify: %w", err)
	}
	r := &readiness{conn: conn, seen: make(chan struct{}), ended: make(chan struct{})}
	go r.listen()
	return r, nil
}

// listen reads one datagram after the other; each is lines of KEY=VALUE.
func (r *readiness) listen() {
	defer close(r.ended)
	buffer := make([]byte, 4096)
	for {
		n, err := r.conn.Read(buffer)
		if err != nil {
			return // closed
		}
		for _, line := range strings.Split(string(buffer[:n]), "\n") {
			if line == "READY=1" {
				close(r.seen)
				return
			}
		}
	}
}

func (r *readiness) close() {
	_ = r.conn.Close() // nothing was written to it
	<-r.ended
}
