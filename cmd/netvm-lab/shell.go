package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"netvmd/internal/lab"
)

const shellAbout = `netvm-lab shell builds the lab, connects the netvm to the network "home", and opens
a shell in the netvm. When the shell ends, everything is gone. With --chain there is
a second netvm behind it, "proxy", and an AppVM behind that, "inner".`

const shellHelp = `
You are root in the netvm. Try:

  nmcli connection               home, home-static, office, vpn: up and down
  netvmctl status                what it is all about; also watch, dns, vifs, doctor
  nft list table ip netvmd       the kernel's rules
  busctl --system introspect org.qubes_os.NetVM1 /org/qubes_os/NetVM1
  tail -f ` + lab.Root + `/log/netvmd.log

  lab-run work COMMAND           run a command in another host:
                                 work personal netvm home office vpn,
                                 and with --chain proxy inner
  lab-ask                        what work is answered, by which resolver
  lab-portal shut                a captive portal is in the way at home; also open

The other hosts' logs are in ` + lab.Root + `/log. Leave with exit or Ctrl-D.

`

// shellSetup is read by the shell at its start.
const shellSetup = `
PS1='\[\e[1m\]netvm\[\e[0m\] \w # '
[ -n "${NO_COLOR+set}" ] && PS1='netvm \w # '
lab-run() { local host=$1; shift; "$NETVM_LAB" exec "$host" -- "$@"; }
lab-ask() { "$NETVM_LAB" exec work -- "$NETVM_LAB" ask 10.139.1.1 10.139.1.2; }
lab-portal() { "$NETVM_LAB" portal "$@"; }
cat "$NETVM_LAB_HELP"
`

func shell(ctx context.Context, args []string) error {
	chain := false
	c, err := parse("shell", shellAbout, args, func(f *flag.FlagSet) {
		f.BoolVar(&chain, "chain", false, "with a chained netvm, and an AppVM behind it")
	})
	if err != nil {
		return err
	}
	return c.explore(ctx, func(l *lab.Lab) error {
		if chain {
			if _, _, err := l.Chain(ctx, lab.Options{}, c.beside("netvmctl")); err != nil {
				return err
			}
		}
		return openShell(l, shellHelp)
	})
}

// explore builds the lab, with the netvm on the network "home", and leaves it to a person.
func (c *common) explore(ctx context.Context, use func(*lab.Lab) error) error {
	backends, err := c.backends()
	if err != nil {
		return err
	}
	if len(backends) != 1 {
		return fmt.Errorf("explore one backend at a time; %w", errUsage)
	}
	if err := lab.Enter(); err != nil {
		return err
	}
	options := c.options(backends[0], "debug")
	options.Portal = true
	return c.withLabOf(ctx, options, func(l *lab.Lab) error {
		if err := l.NetVM.NMCLI(ctx, "connection", "up", "home"); err != nil {
			return err
		}
		return use(l)
	})
}

// shellEnd is how long a shell that was told to end may take.
const shellEnd = 5 * time.Second

// openShell runs a shell in the netvm, which begins with a text, until the user leaves it or this program is told to end.
// Ctrl-C is the shell's own business.
func openShell(l *lab.Lab, text string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("shell: %w", err)
	}
	setup, help := filepath.Join(lab.Root, "shellrc"), filepath.Join(lab.Root, "shell-help")
	for path, text := range map[string]string{setup: shellSetup, help: text} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("shell: %w", err)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	cmd := exec.CommandContext(ctx, "bash", "--rcfile", setup, "-i")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGHUP) } // SIGTERM is nothing to a shell that somebody uses
	cmd.WaitDelay = shellEnd
	cmd.Env = append(l.NetVM.Environ(), "NETVM_LAB="+self, "NETVM_LAB_HELP="+help,
		"NETVMD_CONFIG="+l.NetVM.NetvmdConfig(), "PATH="+filepath.Dir(self)+":"+os.Getenv("PATH"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := l.NetVM.Start(cmd); err != nil {
		return err
	}
	// What the last command in the shell returned says nothing about the lab.
	_ = cmd.Wait()
	return ctx.Err()
}
