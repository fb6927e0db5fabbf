package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
)

func boot(ctx context.Context, t *testing.T, o Options) *Machine {
	t.Helper()
	m, err := Boot(ctx, o)
	if err != nil {
		t.Fatalf("this test needs root and systemd-nspawn (package systemd-container): %v", err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestMachinesBootBesideEachOther(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	shared := t.TempDir()
	one := boot(ctx, t, Options{Binds: []Bind{{From: shared, To: "/opt/shared"}}})
	other := boot(ctx, t, Options{})

	t.Run("a program runs inside, with the container's first process as its own", func(t *testing.T) {
		out, err := one.Run(ctx, "sh", "-c", "cat /proc/1/comm; id -u; echo here >/opt/shared/word")
		if err != nil || out != "systemd\n0\n" {
			t.Errorf("%v: %q", err, out)
		}
		if word, err := os.ReadFile(shared + "/word"); err != nil || string(word) != "here\n" {
			t.Errorf("what it wrote into a shared folder: %v: %q", err, word)
		}
	})
	t.Run("an error has what the program printed", func(t *testing.T) {
		if _, err := one.Run(ctx, "sh", "-c", "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
			t.Errorf("%v", err)
		}
	})
	t.Run("its files are seen from here", func(t *testing.T) {
		if _, err := os.Stat(one.Path("/run/dbus/system_bus_socket")); err != nil {
			t.Error(err)
		}
	})
	t.Run("a service in one is not touched by its namesake in the other", func(t *testing.T) {
		for _, m := range []*Machine{one, other} {
			if out, err := m.Run(ctx, "systemd-run", "--quiet", "--unit=sleeper", "sleep", "infinity"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		if out, err := one.Run(ctx, "systemctl", "stop", "sleeper"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if out, err := other.Run(ctx, "systemctl", "is-active", "sleeper"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("it shuts down in order, and the other runs on", func(t *testing.T) {
		if err := one.PowerOff(ctx); err != nil {
			t.Error(err)
		}
		if out, err := other.Run(ctx, "true"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("nothing is left of one that was cut off", func(t *testing.T) {
		left := append([]string{other.dir}, other.groups...)
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range left {
			if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}

func TestABootThatFailsSaysWhy(t *testing.T) {
	m, err := Boot(context.Background(), Options{Root: t.TempDir()})
	if err == nil {
		t.Fatalf("an empty folder boots: %v", m.Close())
	}
	if !strings.Contains(err.Error(), "os-release") && !strings.Contains(err.Error(), "OS tree") {
		t.Errorf("%v", err)
	}
}
