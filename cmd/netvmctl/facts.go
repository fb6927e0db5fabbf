package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"time"

	godbus "github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"netvmd/dbus"
	"netvmd/internal/doctor"
	"netvmd/internal/netvm"
	"netvmd/internal/systembus"
	"netvmd/internal/vif"
)

// reportTimeout bounds all that a report waits for, together. The slowest are the doctor's checks: 15 s if one gets no answer.
const reportTimeout = 20 * time.Second

// fact is something that was found out, or why it was not.
type fact[T any] struct {
	value T
	err   error
}

// find begins to find something out. The returned function waits for it, and no longer than ctx.
func find[T any](ctx context.Context, read func(context.Context) (T, error)) (await func() fact[T]) {
	found := make(chan fact[T], 1)
	go func() {
		value, err := read(ctx)
		found <- fact[T]{value, err}
	}()
	return func() fact[T] {
		select {
		case f := <-found:
			return f
		case <-ctx.Done():
		}
		select { // what came at the last moment counts
		case f := <-found:
			return f
		default:
			return fact[T]{err: fmt.Errorf("no answer in time: %w", ctx.Err())}
		}
	}
}

// counted is what netvmd and the kernel counted.
type counted struct {
	netvm.Statistics
	tally netvm.Tally
}

// facts are what a report is made of.
type facts struct {
	networkManager fact[string] // its version
	status         fact[netvm.Status]
	statistics     fact[counted]
	routes         fact[[]netvm.Route]
	checks         fact[[]doctor.Result]
	rules          fact[holdings]
}

// gather finds all facts out at the same time.
func gather(cmd *cobra.Command, g *globals) facts {
	ctx, cancel := context.WithTimeout(cmd.Context(), reportTimeout)
	defer cancel()
	networkManager := find(ctx, networkManagerVersion)
	status := find(ctx, func(ctx context.Context) (s netvm.Status, err error) {
		return s, ask(ctx, func(ctx context.Context, c *dbus.Client) error { s, err = c.Status(ctx); return err })
	})
	statistics := find(ctx, func(ctx context.Context) (n counted, err error) {
		return n, ask(ctx, func(ctx context.Context, c *dbus.Client) error {
			n.Statistics, n.tally, err = c.Statistics(ctx)
			return err
		})
	})
	routes := find(ctx, func(context.Context) ([]netvm.Route, error) { return vif.Routes() })
	checks := find(ctx, func(ctx context.Context) ([]doctor.Result, error) {
		return doctor.Run(ctx, doctor.Options{Config: g.config, Version: version}), nil
	})
	rules := find(ctx, func(ctx context.Context) (holdings, error) {
		t, err := openTable(cmd, g)
		if err != nil {
			return holdings{}, err
		}
		return t.holdings(ctx)
	})
	return facts{networkManager(), status(), statistics(), routes(), checks(), rules()}
}

// networkManagerVersion asks NetworkManager, and does not start it.
func networkManagerVersion(ctx context.Context) (string, error) {
	const name, busError = "org.freedesktop.NetworkManager", "org.freedesktop.DBus.Error."
	conn, err := systembus.Connect(ctx)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }() // the answer is here
	var text string
	err = conn.Object(name, "/org/freedesktop/NetworkManager").CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get",
		godbus.FlagNoAutoStart, name, "Version").Store(&text)
	var refused godbus.Error
	if errors.As(err, &refused) && (refused.Name == busError+"ServiceUnknown" || refused.Name == busError+"NameHasNoOwner") {
		return "", errors.New("it is not running")
	}
	return text, err
}

// kernel is what uname(2) says: the kernel's name, release, version and machine.
func kernel() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return strings.Join([]string{unix.ByteSliceToString(name.Sysname[:]), unix.ByteSliceToString(name.Release[:]),
		unix.ByteSliceToString(name.Version[:]), unix.ByteSliceToString(name.Machine[:])}, " "), nil
}

// system is the operating system's name for people, from the places that os-release(5) names.
func system() (string, error) {
	text, err := os.ReadFile("/etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		text, err = os.ReadFile("/usr/lib/os-release")
	}
	if err != nil {
		return "", err
	}
	return prettyName(string(text)), nil
}

// prettyName finds PRETTY_NAME in os-release(5), which has the syntax of a shell's assignments.
func prettyName(text string) string {
	for _, line := range strings.Split(text, "\n") {
		if value, is := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); is {
			return strings.Trim(value, `"'`)
		}
	}
	return runtime.GOOS
}
