// Command netvmd keeps AppVM DNS on the resolvers of the netvm's current uplink: it follows NetworkManager,
// systemd-resolved, resolv.conf and the netvm above, if there is one, and translates the virtual DNS addresses in the kernel.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"golang.org/x/sync/errgroup"

	"netvmd/dbus"
	"netvmd/internal/config"
	"netvmd/internal/engine"
	"netvmd/internal/firewall"
	"netvmd/internal/hooks"
	"netvmd/internal/override"
	"netvmd/internal/parts"
	"netvmd/internal/store"
	"netvmd/internal/vif"
	"netvmd/nmhook"
)

// version is set by the Makefile.
var version = "devel"

const usage = `netvmd keeps AppVM DNS on the resolvers of the netvm's current uplink.

Usage: netvmd [--config FILE] [--log-level LEVEL]

It runs as root in the netvm, as the service netvmd. SIGHUP reads the configuration again; SIGTERM ends it and
leaves the kernel's rules as they are, so that AppVMs go on with the last good ones.

`

// memoryLimit is how much memory, in bytes, the Go runtime keeps without being asked to be thrifty. A netvm has little,
// and one look at a full conntrack table would otherwise leave its size behind; the program itself needs a few MiB.
const memoryLimit = 16 << 20

func main() {
	debug.SetMemoryLimit(memoryLimit)
	flags := flag.NewFlagSet("netvmd", flag.ContinueOnError)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	path := flags.String("config", "", "configuration `file` (default "+config.DefaultPath+", or $NETVMD_CONFIG)")
	level := slog.LevelInfo
	flags.TextVar(&level, "log-level", slog.LevelInfo, "least important `level` that is logged: debug, info, warn or error")
	showVersion := flags.Bool("version", false, "print the version and exit")
	switch err := flags.Parse(os.Args[1:]); {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		os.Exit(2)
	case flags.NArg() > 0:
		fmt.Fprintf(os.Stderr, "netvmd: unexpected argument %q; see netvmd --help\n", flags.Arg(0))
		os.Exit(2)
	case *showVersion:
		fmt.Println("netvmd", version)
		return
	}
	if err := run(*path, newLog(level)); err != nil {
		fmt.Fprintln(os.Stderr, "netvmd:", err)
		os.Exit(1)
	}
}

// run is the whole machine: sources, engine, sinks.
func run(path string, log *slog.Logger) error {
	conf, err := config.Load(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(conf.RuntimeDir, 0o755); err != nil {
		return fmt.Errorf("runtime_dir: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	setup, done, err := parts.Setup(ctx, conf, conf.DNS.VirtualOr(nil), log)
	if err != nil {
		return err
	}
	defer done()
	vifs := vif.NewCensus(setup)
	rules, err := parts.Firewall(ctx, conf, log)
	if err != nil {
		return err
	}
	flows, err := firewall.NewConntrack()
	if err != nil {
		return err
	}
	defer flows.Close()
	uplinks := nmhook.New(nmhook.Config{ResolvConf: conf.DNS.ResolvConf, Log: log})
	own := vif.NewOwnAddresses(log)
	units := hooks.NewUnits(ctx, log)
	units.Configure(conf.Hooks.TryRestartUnits, conf.Hooks.TryReloadUnits)
	toolstack := store.NewFollower(parts.StoreOptions(conf), log)
	overrides := override.Open(conf.StateDir, conf.RuntimeDir)
	current := &settings{conf: conf, store: toolstack, overrides: overrides, vifs: vifs, uplinks: uplinks}
	service := dbus.NewService(&callers{current, overrides, parts.Tally(conf, log), log}, log)

	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return own.Run(ctx) })
	all.Go(func() error { return toolstack.Run(ctx) })
	// Without the store's first word the engine would decide about virtual addresses that are not this netvm's.
	select {
	case <-ctx.Done():
		return all.Wait()
	case <-toolstack.Changed():
	}
	settings := current.merged()
	uplinks.Serve(settings.PassThrough)
	all.Go(func() error { return uplinks.Run(ctx) })
	current.engine = engine.New(engine.Parts{
		Version:    version,
		Uplinks:    uplinks,
		Own:        own,
		Vifs:       vifs,
		Firewall:   rules,
		Flows:      flows,
		Publisher:  service,
		Dependants: units,
		Sources:    []engine.Source{uplinks, own, current},
		SecondLook: firewall.AnswerGrace,
		Log:        log,
	}, settings)

	all.Go(func() error { return rules.Watch(ctx, current.engine.Drifted) })
	all.Go(func() error { return current.engine.Run(ctx) })
	all.Go(func() error { return service.Run(ctx) }) // only now: callers ask the engine
	vifs.Configure(current.onlyWarn())
	all.Go(func() error { return vifs.Run(ctx) })
	all.Go(func() error { return supervised(ctx, current.engine, log) })
	all.Go(func() error { return current.follow(ctx) })
	all.Go(func() error { return reloads(ctx, path, current, units, log) })
	log.Info("started", "version", version, "backend", rules.Name())
	err = all.Wait()
	log.Info("stopped; the kernel's rules stay")
	return err
}

// newLog writes an event a line to standard error. The journal has the time already.
func newLog(level slog.Level) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
