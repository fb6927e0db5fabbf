// Command qvm-dom0-network-via-netvm puts dom0, which has no network, on one for a short while: through the netvm, as if it
// were an AppVM, while all other domains stand paused.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"netvmd/internal/config"
	"netvmd/internal/dom0"
	"netvmd/internal/words"
)

// version is set by the Makefile.
var version = "devel"

// Exit codes, as netvmctl has them.
const (
	exitFine       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotAllowed = 4
)

const usage = `qvm-dom0-network-via-netvm puts dom0 on the network through the netvm, for a short while.

Usage: qvm-dom0-network-via-netvm up|down [options]

up pauses every running domain but dom0 and the netvm, gives dom0 a network card of the netvm and configures it. down takes
the card away again, restores resolv.conf and lets the domains go on that up has paused. What was done stands in a journal,
so that down works after a crash and after a reboot too.

Exit codes: 0 fine, 1 failed (up has taken everything back then), 2 wrong usage, 4 not allowed.

`

func main() {
	// Who reads the output may be gone before all is done, which must not end this program half-way.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, ""))
}

// call is a command line.
type call struct {
	down    bool
	config  string
	options dom0.Options
}

// errDone ends a run that had nothing to do but to print.
var errDone = errors.New("done")

// run runs one command and returns its exit code. root stands before the kernel's files; "" but in tests.
func run(args []string, out, complaints io.Writer, root string) int {
	c, err := parse(args, out)
	switch {
	case errors.Is(err, errDone):
		return exitFine
	case err != nil:
		fmt.Fprintf(complaints, "qvm-dom0-network-via-netvm: %v; see qvm-dom0-network-via-netvm --help\n", err)
		return exitUsage
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = c.do(ctx, out, complaints, root)
	if err == nil {
		return exitFine
	}
	fmt.Fprintln(complaints, "qvm-dom0-network-via-netvm:", words.Harmless(strings.ReplaceAll(err.Error(), "\n", "; ")))
	if errors.Is(err, dom0.ErrNotAllowed) {
		return exitNotAllowed
	}
	return exitFailed
}

func (c call) do(ctx context.Context, out, complaints io.Writer, root string) (err error) {
	o := c.options
	if o.Config, err = config.Load(c.config); err != nil {
		return err
	}
	o.Version, o.Out, o.Root = version, out, root
	o.Log = slog.New(slog.NewTextHandler(complaints, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if c.down {
		return dom0.Down(ctx, o)
	}
	return dom0.Up(ctx, o)
}

// parse reads the command line. Options may stand before and after the command.
func parse(args []string, out io.Writer) (c call, err error) {
	flags := flag.NewFlagSet("qvm-dom0-network-via-netvm", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&c.options.Netvm, "netvm", "", "`name` of the domain that has the network cards (default sys-net if it runs, else netvm)")
	flags.TextVar(&c.options.Address, "address", dom0.DefaultAddress, "dom0's own `address`, IPv4")
	flags.TextVar(&c.options.Gateway, "gateway", netip.Addr{},
		"the netvm's `address` for its AppVMs, IPv4 (default vif.gateway of the configuration, else what the toolstack says)")
	flags.BoolVar(&c.options.DryRun, "dry-run", false, "print the steps, and take none")
	flags.StringVar(&c.config, "config", "", "configuration `file` (default "+config.DefaultPath+", or $NETVMD_CONFIG)")
	showVersion := flags.Bool("version", false, "print the version and exit")
	var commands []string
	for rest := args; ; {
		if err := flags.Parse(rest); errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(out)
			fmt.Fprint(out, usage)
			flags.PrintDefaults()
			return c, errDone
		} else if err != nil {
			return c, err
		}
		if flags.NArg() == 0 {
			break
		}
		commands, rest = append(commands, flags.Arg(0)), flags.Args()[1:]
	}
	if *showVersion {
		fmt.Fprintln(out, "qvm-dom0-network-via-netvm", version)
		return c, errDone
	}
	if len(commands) != 1 || !slices.Contains([]string{"up", "down"}, commands[0]) {
		return c, fmt.Errorf("one command is wanted, up or down, and %.64q was given", strings.Join(commands, " "))
	}
	c.down = commands[0] == "down"
	return c, c.check(flags)
}

// check finds what the options alone cannot tell.
func (c call) check(flags *flag.FlagSet) (err error) {
	for name, a := range map[string]netip.Addr{"address": c.options.Address, "gateway": c.options.Gateway} {
		if a.IsValid() && (!a.Is4() || !a.IsGlobalUnicast()) {
			err = fmt.Errorf("--%s: %s is no unicast IPv4 address", name, a)
		}
	}
	if c.down {
		flags.Visit(func(f *flag.Flag) {
			if slices.Contains([]string{"netvm", "address", "gateway"}, f.Name) {
				err = fmt.Errorf("down takes no --%s: it takes back what up has done", f.Name)
			}
		})
	}
	return err
}
