package qubes

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"netvmd/internal/lab"
)

func write(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestADomainOfQubesIsOffUntilItsServiceIsOn(t *testing.T) {
	d := Domain{Root: t.TempDir()}
	want := func(when string, off bool) {
		t.Helper()
		if got, err := d.Off(); err != nil || got != off {
			t.Errorf("%s: off %v, %v", when, got, err)
		}
	}
	want("a plain machine", false)
	write(t, d.Root, marker, "")
	want("a domain of Qubes", true)
	write(t, d.Root, Flag("network-manager"), "")
	want("another service is on", true)
	write(t, d.Root, Flag(Netvmd), "")
	want("the service is on", false)
	if err := os.Remove(filepath.Join(d.Root, marker)); err != nil {
		t.Fatal(err)
	}
	want("a plain machine with the file", false)
}

func TestTheRemedyNamesTheDomain(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	d := Domain{Root: t.TempDir(), Socket: filepath.Join(t.TempDir(), "qubesdb.sock")}
	want := func(when, text string) {
		t.Helper()
		if got := d.TurnOn(ctx, Netvmd); got != text {
			t.Errorf("%s: %q, want %q", when, got, text)
		}
	}
	const nameless = "In dom0: qvm-service <this domain's name> netvmd on, and start the domain again"
	want("nobody knows the name", nameless)
	write(t, d.Root, "/proc/sys/kernel/hostname", "sys-net\n")
	want("the host has it", "In dom0: qvm-service sys-net netvmd on, and start sys-net again")
	write(t, d.Root, "/proc/sys/kernel/hostname", "a; rm -rf /\n")
	want("the host's name is none of a domain", nameless)

	db, err := lab.StartQubesDB(d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	db.Set(ownName, "net-2")
	want("QubesDB has it", "In dom0: qvm-service net-2 netvmd on, and start net-2 again")
	db.Set(ownName, "$(reboot)")
	want("QubesDB talks nonsense", nameless)
}
