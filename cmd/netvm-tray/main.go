// Command netvm-tray shows in the desktop's panel whether the netvm is online, through what, and which AppVMs hang on it.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"netvmd/tray"
)

// version is set by the Makefile.
var version = "devel"

// serviceFolder is where Qubes says which of the domain's services are on.
const serviceFolder = "/run/qubes-service"

const usage = `netvm-tray shows in the desktop's panel whether the netvm is online, through what, and which AppVMs hang on it.

Usage: netvm-tray [--no-notifications] [--service NAME] [--log-level LEVEL]

It follows netvmd on the system bus, and waits for it and for a panel. It exits 0 when it is told to quit, at logout, and
where it runs on this display already; 1 without a display; 2 for wrong usage.

`

// memoryLimit is how much memory, in bytes, the Go runtime keeps without being asked to be thrifty. GTK's comes on top.
const memoryLimit = 16 << 20

func main() {
	debug.SetMemoryLimit(memoryLimit)
	flags := flag.NewFlagSet("netvm-tray", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	silent := flags.Bool("no-notifications", false, "never send a notification to the desktop")
	service := flags.String("service", "", "run only where Qubes has the service `NAME` on, else exit 0")
	level := slog.LevelInfo
	flags.TextVar(&level, "log-level", slog.LevelInfo, "least important `level` that is logged: debug, info, warn or error")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "netvm-tray: unexpected argument %q; see netvm-tray --help\n", flags.Arg(0))
		os.Exit(2)
	case *service != filepath.Base(*service) && *service != "":
		fmt.Fprintf(os.Stderr, "netvm-tray: --service %q is not the name of a service\n", *service)
		os.Exit(2)
	case *showVersion:
		fmt.Println("netvm-tray", version)
		return
	case !wanted(*service):
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(!*silent, log); err != nil {
		fmt.Fprintln(os.Stderr, "netvm-tray:", err)
		if held := (tray.HeldError{}); !errors.As(err, &held) {
			os.Exit(1)
		}
	}
}

// wanted tells whether the service is on.
func wanted(service string) bool {
	if service == "" {
		return true
	}
	_, err := os.Stat(filepath.Join(serviceFolder, service))
	return err == nil
}

// run shows the tray until it is told to end.
func run(notify bool, log *slog.Logger) error {
	display := cmp.Or(os.Getenv("DISPLAY"), os.Getenv("WAYLAND_DISPLAY"))
	if display == "" {
		return tray.ErrNoDisplay
	}
	folder, err := tray.Claim(display)
	if err != nil {
		return err
	}
	environ := os.Environ()
	if err := prepare(folder.Path); err != nil {
		folder.Leave()
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	return tray.Run(ctx, tray.Options{Notify: notify, Environ: environ, Leave: folder.Leave, Log: log})
}

// prepare sets what the C libraries read of the environment. The icons are handed over as files in TMPDIR. OpenGL, which
// nothing here draws with, would cost more memory than all the rest. Qubes forwards icons of X11 only, which GTK does not
// choose by itself where there is Wayland, too.
func prepare(folder string) error {
	settings := map[string]string{"TMPDIR": folder, "GDK_GL": "disable"}
	if os.Getenv("DISPLAY") != "" && os.Getenv("GDK_BACKEND") == "" {
		settings["GDK_BACKEND"] = "x11"
	}
	for name, value := range settings {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}
