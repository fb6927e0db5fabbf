package parts_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"netvmd/internal/config"
	"netvmd/internal/lab"
	"netvmd/internal/parts"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func settings(t *testing.T, backend config.Backend) config.Config {
	t.Helper()
	conf := config.Default()
	conf.RuntimeDir, conf.Firewall.Backend, conf.Store.Kind = t.TempDir(), backend, config.StoreNone
	return conf
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestTheTallyIsForManyAtATime(t *testing.T) {
	for _, backend := range []config.Backend{"nftables", "iptables"} {
		t.Run(string(backend), func(t *testing.T) {
			ctx, conf := deadline(t), settings(t, backend)
			tally := parts.Tally(conf, quiet())
			if got, err := tally(ctx); err != nil || len(got.Counters) > 0 {
				t.Fatalf("without rules: %+v, %v", got, err)
			}
			rules, err := parts.Firewall(ctx, conf, quiet())
			if err == nil {
				_, err = rules.Ensure(ctx, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { flush(t) })
			var callers sync.WaitGroup
			for range 8 {
				callers.Add(1)
				go func() {
					defer callers.Done()
					if got, err := tally(ctx); err != nil || len(got.Counters) == 0 || got.Spoofed != 0 {
						t.Errorf("%+v, %v", got, err)
					}
				}()
			}
			callers.Wait()
		})
	}
}

func flush(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Errorf("nft flush ruleset: %v: %s", err, out)
	}
}

func TestAFirewallThatDoesNotOpenIsTriedAgain(t *testing.T) {
	ctx, path := deadline(t), os.Getenv("PATH")
	tally := parts.Tally(settings(t, "iptables"), quiet())
	bad := t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "iptables"), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bad+":"+path)
	if got, err := tally(ctx); err == nil {
		t.Errorf("with an iptables that fails: %+v", got)
	}
	t.Setenv("PATH", path)
	if _, err := tally(ctx); err != nil {
		t.Error(err)
	}
}

func TestAnImpatientCallerIsNotKept(t *testing.T) {
	fifo, path := t.TempDir(), os.Getenv("PATH")
	if out, err := exec.Command("mkfifo", filepath.Join(fifo, "begun")).CombinedOutput(); err != nil {
		t.Fatalf("mkfifo: %v: %s", err, out)
	}
	// An iptables that says it runs, and then hangs until it is ended.
	script := fmt.Sprintf("#!/bin/sh\necho >%s/begun\nexec sleep 1000\n", fifo)
	if err := os.WriteFile(filepath.Join(fifo, "iptables"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", fifo+":"+path)
	tally := parts.Tally(settings(t, "iptables"), quiet())
	first, end := context.WithCancel(deadline(t))
	ended := make(chan error, 1)
	go func() {
		_, err := tally(first)
		ended <- err
	}()
	if _, err := os.ReadFile(filepath.Join(fifo, "begun")); err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := tally(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("who waits for another caller: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it waited until the other caller ended: %v", err)
	default:
	}
	end()
	if err := <-ended; err == nil {
		t.Error("the caller whose iptables hangs got an answer")
	}
}
