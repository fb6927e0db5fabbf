package notify

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestWhatAProgramSaysIsHeard(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // all was sent
	for _, said := range []string{"STATUS=a = b\nMAINPID=1", "MAINPID=2\nREADY=1\n", "READY=1"} {
		if _, err := conn.Write([]byte(said)); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"MAINPID", "READY"} {
		select {
		case <-l.Said(key):
		case <-time.After(10 * time.Second):
			t.Fatalf("%s was not heard", key)
		}
	}
	<-l.Ready()
	if status, pid := l.Value("STATUS"), l.Value("MAINPID"); status != "a = b" || pid != "2" {
		t.Errorf("STATUS is %q, MAINPID %q", status, pid)
	}
	if l.Value("WATCHDOG") != "" {
		t.Error("something is known that nobody said")
	}
}
