package xenstore

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// crumb is how many bytes the device of the tests gives at a time: less than a header.
const crumb = 7

// device stands for /dev/xen/xenbus: a terminal in raw mode is a character device too, can be polled, reads short, and
// everything that is written to it is handed on to the store's socket.
func device(t *testing.T, socket string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("a terminal is needed to stand for the device: %v", err)
	}
	path, err := rawTerminal(master)
	if err != nil {
		t.Fatal(err)
	}
	// As long as one end is open here, the terminal does not hang up before the client opens it.
	held, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var copying sync.WaitGroup
	copying.Add(2)
	go func() {
		defer copying.Done()
		_, _ = io.Copy(conn, master) // ends when the test ends
	}()
	go func() {
		defer copying.Done()
		_, _ = io.CopyBuffer(struct{ io.Writer }{master}, struct{ io.Reader }{conn}, make([]byte, crumb))
	}()
	t.Cleanup(func() {
		for _, c := range []io.Closer{held, master, conn} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		copying.Wait()
	})
	return path
}

// rawTerminal makes the terminal pass every byte as it is, and returns the path of its other end.
func rawTerminal(master *os.File) (path string, err error) {
	raw, err := master.SyscallConn()
	if err != nil {
		return "", err
	}
	control := raw.Control(func(descriptor uintptr) {
		fd := int(descriptor)
		var number uint32
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		if number, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN); err != nil {
			return
		}
		path = fmt.Sprintf("/dev/pts/%d", number)
		var modes *unix.Termios
		if modes, err = unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
			return
		}
		modes.Iflag, modes.Oflag, modes.Lflag = 0, 0, 0
		modes.Cflag = modes.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
		modes.Cc[unix.VMIN], modes.Cc[unix.VTIME] = 1, 0
		err = unix.IoctlSetTermios(fd, unix.TCSETS, modes)
	})
	if err == nil {
		err = control
	}
	return path, err
}
