// Command netvmctl is the command line of the netvm: for people, and for units and scripts.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"netvmd/dbus"
	"netvmd/internal/config"
	"netvmd/internal/qubes"
	"netvmd/internal/words"
)

// version is set by the Makefile.
var version = "devel"

// Exit codes.
const (
	exitFine       = 0
	exitFailed     = 1
	exitUsage      = 2
	exitNotRunning = 3
	exitNotAllowed = 4
)

const rootHelp = `netvmctl shows the netvm and steers it: is it online and through what, where
does the AppVMs' DNS go, which AppVMs are connected, and what is wrong?

Exit codes: 0 fine, 1 failed, 2 wrong usage, 3 netvmd is not running, 4 not
allowed.

With --json the keys are the names of org.qubes_os.NetVM1 on D-Bus; moments are
microseconds since 1970, lengths of time are microseconds.`

// failure is an error of the work itself; any other is one of usage.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// errSaid ends a command as failed whose output says it all.
var errSaid = failure{errors.New("said already")}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run runs one command and returns its exit code.
func run(args []string, out, complaints io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends what does not end
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(complaints)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitFine
	}
	code, text := explain(cmd, err)
	if !errors.Is(err, errSaid) {
		fmt.Fprintln(complaints, "netvmctl:", words.HarmlessLines(text))
	}
	return code
}

// explain says which exit code an error has, and what a person is told.
func explain(cmd *cobra.Command, err error) (code int, text string) {
	var answer dbus.Error
	switch {
	case !errors.As(err, &failure{}):
		return exitUsage, fmt.Sprintf("%v; see %s --help", err, cmd.CommandPath())
	case errors.As(err, &answer) && answer.Name == dbus.InvalidArguments:
		return exitUsage, err.Error()
	case errors.Is(err, dbus.ErrNotRunning):
		return exitNotRunning, notRunning(cmd)
	case errors.Is(err, dbus.ErrNotAllowed):
		return exitNotAllowed, "not allowed: run it as root, or allow " + cmd.Annotations[polkitAction] + " in polkit"
	case errors.Is(err, fs.ErrPermission):
		return exitNotAllowed, err.Error()
	}
	return exitFailed, err.Error()
}

// notRunning says that netvmd is not running, and how it is started.
func notRunning(cmd *cobra.Command) string {
	conf := config.Default() // where the configuration is wrong, netvmd says so when it is started
	if path, err := cmd.Flags().GetString("config"); err == nil {
		if loaded, err := config.Load(path); err == nil {
			conf = loaded
		}
	}
	domain := qubes.Domain{Root: "/", Socket: conf.Store.QubesDBSocket}
	if off, err := domain.Off(); err == nil && off {
		return "netvmd is not running, as it is off in this domain of Qubes. " + domain.TurnOn(cmd.Context(), qubes.Netvmd)
	}
	return "netvmd is not running: systemctl start netvmd"
}

// globals are the flags of every command.
type globals struct {
	config string
	json   bool
}

func newRoot() *cobra.Command {
	cobra.EnableCommandSorting = false // the order below is the one people need
	g := &globals{}
	root := &cobra.Command{
		Use:           "netvmctl",
		Short:         "Look at the netvm, and steer it",
		Long:          rootHelp,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().StringVar(&g.config, "config", "", "configuration `file` (default "+config.DefaultPath+", or $NETVMD_CONFIG)")
	root.PersistentFlags().BoolVar(&g.json, "json", false, "print JSON")
	group := func(id, title string, commands ...*cobra.Command) {
		root.AddGroup(&cobra.Group{ID: id, Title: title})
		for _, c := range commands {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	group("look", "Look:", newStatus(g), newDoctor(g), newWatch(g), newVifs(g), newRoutes(g), newStatistics(g),
		newReport(g))
	group("steer", "Look and steer:", newDNS(g), newFirewall(g), newUplink(g))
	group("program", "The program itself:", newCompletion(), newVersion(g))
	root.SetHelpCommandGroupID("program")
	return root
}

func newVersion(g *globals) *cobra.Command {
	return command("version", "Print the version", "", func(cmd *cobra.Command) error {
		if g.json {
			return writeJSON(cmd, map[string]string{"version": version})
		}
		return write(cmd, "netvmctl "+version+"\n")
	})
}

// command makes a command without arguments.
func command(use, short, long string, do func(cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions, RunE: work(do),
	}
}

// work makes a command's function one whose errors are failures.
func work(f func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := f(cmd); err != nil {
			return failure{err}
		}
		return nil
	}
}

// logTo makes a log for what a person should know beside the output.
func logTo(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelWarn}))
}
