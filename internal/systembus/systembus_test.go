package systembus_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"netvmd/internal/systembus"
)

func TestABusThatDoesNotExistIsToldFromOneThatFails(t *testing.T) {
	t.Run("no address and no socket", func(t *testing.T) {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "")
		if _, err := os.Stat("/run/dbus/system_bus_socket"); err == nil {
			t.Log("this machine has a system bus: only the address is tested")
			return
		}
		wantNotExist(t, true)
	})
	t.Run("an address whose socket is not there", func(t *testing.T) {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
		wantNotExist(t, true)
	})
	t.Run("an address that is none", func(t *testing.T) {
		t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "nonsense")
		wantNotExist(t, false)
	})
}

func wantNotExist(t *testing.T, want bool) {
	t.Helper()
	conn, err := systembus.Connect(context.Background())
	if err == nil {
		_ = conn.Close()
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) != want {
		t.Errorf("%v; fs.ErrNotExist: want %t", err, want)
	}
}
