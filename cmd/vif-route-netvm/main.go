// Command vif-route-netvm is the hotplug script of a netvm's vifs: the Xen toolstack runs it when an AppVM's network
// card comes and goes. It does the whole work in one process, with or without netvmd.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"netvmd/internal/config"
	"netvmd/internal/parts"
	"netvmd/internal/store/xenstore"
	"netvmd/internal/vif"
)

// version is set by the Makefile.
var version = "devel"

// deadline is for the work of one run. Xen kills a hotplug program after 40 s (LIBXL_HOTPLUG_TIMEOUT), and one that is
// killed can roll back nothing: what remains of the 40 s is for that.
const deadline = 25 * time.Second

const usage = `vif-route-netvm sets up the netvm's end of an AppVM's network card: routed, antispoofed, closed.

Usage: vif-route-netvm online|offline [type_if=vif]

The Xen toolstack runs it: name it in a guest's configuration, as vif = [ 'script=vif-route-netvm,ip=10.137.0.5,…' ].
It wants the environment that the toolstack gives: vif (the device, such as vif4.0) and XENBUS_PATH (its nodes in
XenStore, relative to the own domain or absolute). Both commands may be repeated. It exits 0 when the kernel is as
wanted, else 1, with one line on standard error, which is also left in the node hotplug-error. Exit 2: wrong usage.

`

// memoryLimit is where the collector of garbage begins its work after all, in bytes: ten times what a run needs.
const memoryLimit = 64 << 20

func main() {
	// A run is a few milliseconds, one thing after the other: more processors and an early collector would cost a third
	// more of them.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	flags := flag.NewFlagSet("vif-route-netvm", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	path := flags.String("config", "", "configuration `file` (default "+config.DefaultPath+", or $NETVMD_CONFIG)")
	level := slog.LevelWarn
	flags.TextVar(&level, "log-level", slog.LevelWarn, "least important `level` that is logged: debug, info, warn or error")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	case *showVersion:
		fmt.Println("vif-route-netvm", version)
		return
	}
	command, err := parseCommand(flags.Args())
	if err != nil {
		fmt.Fprintf(os.Stderr, "vif-route-netvm: %v; see vif-route-netvm --help\n", err)
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if err := run(command, *path, log); err != nil {
		fmt.Fprintln(os.Stderr, "vif-route-netvm:", oneLine(err))
		os.Exit(1)
	}
}

// parseCommand takes what the toolstack says: a command, then words of the form key=value.
func parseCommand(args []string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("no command: online or offline is wanted")
	}
	for _, word := range args[1:] {
		key, value, ok := strings.Cut(word, "=")
		if !ok {
			return "", fmt.Errorf("unexpected argument %.64q", word)
		}
		if key == "type_if" && value != "vif" {
			return "", fmt.Errorf("%.64q: only paravirtual cards are routed: give the guest's card type=vif", word)
		}
	}
	if args[0] != "online" && args[0] != "offline" {
		return "", fmt.Errorf("command %.64q: online or offline is wanted", args[0])
	}
	return args[0], nil
}

// run does one command. What goes wrong, the toolstack finds in the vif's nodes too.
func run(command, configPath string, log *slog.Logger) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	name, path := os.Getenv("vif"), os.Getenv("XENBUS_PATH")
	conf, err := config.Load(configPath)
	switch {
	case err != nil:
		conf = config.Default() // which looks for XenStore in the usual places
	case command == "offline":
		err = offline(ctx, conf, name, log)
	default:
		err = online(ctx, conf, name, path, log)
	}
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", shown(name), err)
	if untold := reportFailure(ctx, conf.Store.XenStorePath, path, err); untold != nil {
		log.Debug("the toolstack cannot be told", "vif", name, "error", untold)
	}
	return err
}

// online brings the vif up, and tells the toolstack.
func online(ctx context.Context, conf config.Config, name, path string, log *slog.Logger) error {
	nodes, err := xenstore.Open(ctx, conf.Store.XenStorePath)
	if err != nil {
		return err
	}
	defer nodes.Close()
	settings, forget, err := parts.Settings(ctx, conf)
	if err != nil {
		return err
	}
	defer forget()
	spec, err := vif.ReadSpec(ctx, name, path, nodes, xenstore.ErrNoEntry, settings)
	if err != nil {
		return err
	}
	setup, done, err := parts.Setup(ctx, conf, settings.Virtual, log)
	if err != nil {
		return err
	}
	defer done()
	if err := setup.Online(ctx, spec); err != nil {
		return err
	}
	return reportSuccess(ctx, nodes, path)
}

// offline takes the vif back. It asks no store: what was done stands in the record and in the kernel.
func offline(ctx context.Context, conf config.Config, name string, log *slog.Logger) error {
	if _, _, err := vif.ParseName(name); err != nil {
		return err
	}
	setup, done, err := parts.Setup(ctx, conf, nil, log)
	if err != nil {
		return err
	}
	defer done()
	return setup.Offline(ctx, name)
}

// shown is the vif's name for an error; what is none is said later, with its value.
func shown(name string) string {
	if _, _, err := vif.ParseName(name); err != nil {
		return "vif"
	}
	return name
}

// oneLine keeps an error on one line, whatever a value in it holds.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
