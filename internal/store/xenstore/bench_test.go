package xenstore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"netvmd/internal/lab"
)

// BenchmarkHotplug is what the hotplug program asks of XenStore for one vif: connect, read eight nodes, write one.
func BenchmarkHotplug(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), fetchPatience)
	defer cancel()
	dir, err := os.MkdirTemp("", "xs")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)

	b.Run("the lab's store", func(b *testing.B) {
		socket := filepath.Join(dir, "lab")
		x, err := lab.StartXenStore(socket)
		if err != nil {
			b.Fatal(err)
		}
		defer x.Close()
		hotplug(ctx, b, socket)
	})
	b.Run("xenstored", func(b *testing.B) {
		x, err := lab.StartXenstored(ctx, dir)
		if errors.Is(err, lab.ErrNoXenstored) {
			b.Skip(err)
		}
		if err != nil {
			b.Fatal(err)
		}
		defer x.Close()
		hotplug(ctx, b, x.Socket)
	})
}

func hotplug(ctx context.Context, b *testing.B, socket string) {
	const folder = "backend/vif/1/0/"
	nodes := []string{"ip", "mac", "type", "frontend", "frontend-id", "handle", "script", "online"}
	c, err := Open(ctx, socket)
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range nodes {
		if err := c.Write(ctx, folder+n, "the value of "+n); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		c, err := Open(ctx, socket)
		if err != nil {
			b.Fatal(err)
		}
		for _, n := range nodes {
			if _, err := c.Read(ctx, folder+n); err != nil {
				b.Fatal(err)
			}
		}
		if err := errors.Join(c.Write(ctx, folder+"hotplug-status", "connected"), c.Close()); err != nil {
			b.Fatal(err)
		}
	}
}
