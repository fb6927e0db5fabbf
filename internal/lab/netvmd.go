package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

const notifySocket = netvmdDir + "/notify"

// StartNetvmd starts the daemon and waits until it says READY=1 (sd_notify(3)).
func (v *NetVM) StartNetvmd(ctx context.Context) error {
	if v.options.Netvmd == "" {
		return errors.New("netvm: no netvmd was given to the lab")
	}
	v.notices.close()
	var err error
	if v.notices, err = listenForNotices(); err != nil {
		return err
	}
	level := v.options.LogLevel
	if level == "" {
		level = "debug"
	}
	cmd := daemonCommand(ctx, v.options.Netvmd, "--config", configPath, "--log-level", level)
	cmd.Env = append(v.Environ(), "NOTIFY_SOCKET="+notifySocket)
	if v.netvmd, err = v.startDaemon(ctx, "netvmd", "", cmd); err != nil {
		return err
	}
	return v.netvmd.await(ctx, v.notices.ready, "say READY=1")
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

// RuntimeDir is netvmd's, where the records of the vifs are.
func (v *NetVM) RuntimeDir() string { return netvmdDir + "/run" }

// StateDir is netvmd's, where the persistent override is.
func (v *NetVM) StateDir() string { return netvmdDir + "/state" }

// notices listens, as a service manager does, to what a daemon tells of itself.
type notices struct {
	conn  *net.UnixConn
	ready chan struct{} // closed at the first READY=1
	ended chan struct{}
}

func listenForNotices() (*notices, error) {
	if err := os.Remove(notifySocket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("netvm: %w", err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifySocket, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("netvm: listen for sd_notify: %w", err)
	}
	n := &notices{conn: conn, ready: make(chan struct{}), ended: make(chan struct{})}
	go n.listen()
	return n, nil
}

// listen reads one datagram after the other; each is lines of KEY=VALUE.
func (n *notices) listen() {
	defer close(n.ended)
	buffer := make([]byte, 4096)
	for said := false; ; {
		length, err := n.conn.Read(buffer)
		if err != nil {
			return // closed
		}
		for _, line := range strings.Split(string(buffer[:length]), "\n") {
			if line == "READY=1" && !said {
				said = true
				close(n.ready)
			}
		}
	}
}

// close ends the listening, if it ever began.
func (n *notices) close() {
	if n == nil {
		return
	}
	_ = n.conn.Close() // nothing was written to it
	<-n.ended
}
