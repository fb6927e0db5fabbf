package filewatch

import (
	"os"
	"path/filepath"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatIsBeingWrittenIsNotReadHalf(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "resolv.conf")
	w, err := New(path)
	must(t, err)
	defer w.Close()
	must(t, w.Arm())
	concerned := func() bool {
		buf := make([]byte, inotifyBuffer)
		n, err := w.inbox.Read(buf)
		must(t, err)
		return w.concerns(buf[:n])
	}
	file, err := os.Create(path)
	must(t, err)
	_, err = file.WriteString("nameserver 192.0.2.1\n")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "neighbour"), []byte("x"), 0o600))
	if concerned() {
		t.Error("a file whose writer has it open, and a neighbour, are reason enough to read")
	}
	must(t, file.Close())
	if !concerned() {
		t.Error("a file that was closed after writing is no reason to read")
	}
}

func TestAWaitEndsWhenTheWatchIsClosed(t *testing.T) {
	w, err := New(filepath.Join(t.TempDir(), "none"))
	must(t, err)
	must(t, w.Arm())
	ended := make(chan error)
	go func() { ended <- w.Wait() }()
	must(t, w.Close())
	if <-ended == nil {
		t.Error("Wait returned as if something had happened")
	}
}

// What the kernel writes is trusted, but what is misread must not end the program.
func FuzzEvents(f *testing.F) {
	w, err := New(filepath.Join(f.TempDir(), "none"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = w.Close() })
	f.Add([]byte{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 'n', 'o', 'n', 'e'})
	f.Add([]byte{1, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(_ *testing.T, events []byte) { w.concerns(events) })
}
