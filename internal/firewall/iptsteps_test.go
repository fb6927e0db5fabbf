package firewall

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// stepped calls step before each change of a table's rules; when that gives an error, the change is not made.
type stepped struct {
	commands
	step func(table string) error
}

func (s stepped) then(table string, change func() error) error {
	if err := s.step(table); err != nil {
		return err
	}
	return change()
}

func (s stepped) Insert(table, chain string, pos int, rule ...string) error {
	return s.then(table, func() error { return s.commands.Insert(table, chain, pos, rule...) })
}

func (s stepped) Replace(table, chain string, pos int, rule ...string) error {
	return s.then(table, func() error { return s.commands.Replace(table, chain, pos, rule...) })
}

func (s stepped) Append(table, chain string, rule ...string) error {
	return s.then(table, func() error { return s.commands.Append(table, chain, rule...) })
}

func (s stepped) Delete(table, chain string, rule ...string) error {
	return s.then(table, func() error { return s.commands.Delete(table, chain, rule...) })
}

func (s stepped) DeleteById(table, chain string, id int) error {
	return s.then(table, func() error { return s.commands.DeleteById(table, chain, id) })
}

func (s stepped) NewChain(table, chain string) error {
	return s.then(table, func() error { return s.commands.NewChain(table, chain) })
}

func (s stepped) ClearChain(table, chain string) error {
	return s.then(table, func() error { return s.commands.ClearChain(table, chain) })
}

func (s stepped) ClearAndDeleteChain(table, chain string) error {
	return s.then(table, func() error { return s.commands.ClearAndDeleteChain(table, chain) })
}

// openStepped opens an iptables backend that calls step before each change.
func openStepped(t *testing.T, ctx context.Context, program string, step func(table string) error) *iptBackend {
	t.Helper()
	b := reopened(t, ctx, program)
	for _, f := range b.families {
		f.commands = stepped{f.commands, step}
	}
	return b
}

// reopened gives the rest of a test a backend whose steps nobody watches.
func reopened(t *testing.T, ctx context.Context, program string) *iptBackend {
	t.Helper()
	b, err := newIPTables(ctx, program, Options{Log: testLog(t)})
	must(t, err)
	return b
}

func TestNothingPassesBetweenTheStepsOfMending(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		for name, command := range map[string]string{
			"a rule of the base firewall is deleted":  "IPT -D QBS-BASE-FORWARD 2",
			"a rule is put into the base firewall":    "IPT -I QBS-BASE-FORWARD 4 -p tcp -j DROP",
			"rules are put in front of ours":          "IPT -I FORWARD -p tcp -j DROP; IPT -t raw -I PREROUTING -p tcp -j DROP",
			"a rule of the base firewall is replaced": "IPT -R QBS-BASE-FORWARD 5 -j DROP",
			"a rule against spoofing is replaced":     "IPT -t raw -R QBS-ALLOWED 3 -m devgroup --src-group 0x2 -j DROP",
			"a rule is put among the admissions":      "IPT -t raw -I QBS-ALLOWED 2 -p tcp -j DROP",
			"the guard of an address is deleted":      "IPT -t raw -D QBS-SPOOF 2; IPT -t raw -A QBS-SPOOF -s 10.137.0.0/24 -j DROP",
			"the rules for DNS are emptied":           "IPT -t nat -F; IPT -t raw -F QBS-ZONE",
			"the base firewall's POSTROUTING is gone": "IPT -t nat -F POSTROUTING; IPT -t nat -F QBS-BASE-POSTROUTING",
		} {
			t.Run(program+"/"+name, func(t *testing.T) {
				ctx := testContext(t)
				n := newTopology(t)
				uplink := at{n.tap("a host on the uplink", n.server), resolverA, resolverA6}
				appVM := at{n.tap("the AppVM", n.client), client4, client6}
				other := at{n.tap("the other AppVM", n.other), other4, other6}
				plain := reopened(t, ctx, program)
				n.admit(ctx, plain)
				n.run("sh", "-c", strings.ReplaceAll(command, "IPT", program))

				steps := 0
				watched := openStepped(t, ctx, program, func(string) error {
					steps++
					n.send(n.client, n.toAll(other4, fmt.Sprint("a spoofer before step ", steps), []at{uplink, other})...)
					n.send(n.client, n.toAll(client4, fmt.Sprint("an AppVM before step ", steps), []at{other})...)
					n.send(n.server, n.toAll(resolverA, fmt.Sprint("a stranger before step ", steps), []at{appVM})...)
					return nil
				})
				apply(t, ctx, watched, to(virtual1, resolverA), to(virtual6, resolverA6))
				t.Logf("%d steps", steps)
				n.mustPass(n.client, client4, client6, uplink)
				n.allow(plain, customForward)
				n.mustPass(n.client, client4, client6, other)
				n.mustPass(n.server, resolverA, resolverA6, appVM)
			})
		}
	}
}

func TestVifsAreClosedBeforeAnythingElseIsLoaded(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			uplink := at{n.tap("a host on the uplink", n.server), resolverA, resolverA6}
			closed, steps := false, 0
			b := openStepped(t, ctx, program, func(table string) error {
				steps++
				if closed = closed || table != "raw"; closed {
					n.send(n.client, n.toAll(client4, fmt.Sprint("a closed vif before step ", steps), []at{uplink})...)
					n.send(n.client, n.toAll(client6, fmt.Sprint("a closed vif before step ", steps), []at{uplink})...)
				}
				return nil
			})
			_, err := b.Ensure(ctx, []netip.Addr{virtual1, virtual6})
			must(t, err)
			n.admit(ctx, reopened(t, ctx, program))
			n.mustPass(n.client, client4, client6, uplink)
		})
	}
}

var errKilled = errors.New("killed")

// diesAfter opens a backend that makes so many changes and no more.
func diesAfter(t *testing.T, ctx context.Context, program string, changes int) *iptBackend {
	return openStepped(t, ctx, program, func(string) error {
		if changes--; changes < 0 {
			return errKilled
		}
		return nil
	})
}

func TestWhoeverDiesWhileLoadingIsSucceeded(t *testing.T) {
	const flush = "for i in IPT4 IPT6; do for t in raw filter nat; do $i -t $t -F; $i -t $t -X; done; done"
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			uplink := at{n.tap("a host on the uplink", n.server), resolverA, resolverA6}
			alive := false
			for changes := 0; !alive; changes += 1 + changes/3 {
				n.run("sh", "-c", strings.NewReplacer("IPT4", program, "IPT6", sixth(program)).Replace(flush))
				_, err := diesAfter(t, ctx, program, changes).Ensure(ctx, []netip.Addr{virtual1})
				if alive = err == nil; !alive && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				next := reopened(t, ctx, program)
				_, err = next.Ensure(ctx, []netip.Addr{virtual1})
				must(t, err)
				settled(t, ctx, next, unserved(virtual1))
				n.admit(ctx, next)
				n.mustPass(n.client, client4, client6, uplink)
			}
		})
	}
}

func TestTheLastIPTablesOfADeadProgramMayFinishMeanwhile(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		for name, work := range map[string]struct {
			left, late string // what the dead program left, and what its last process does to that
			do         func(context.Context, *iptBackend) error
		}{
			"loading": {"-A PREROUTING -j QBS-SPOOF", "-D PREROUTING 3", func(ctx context.Context, b *iptBackend) error {
				_, err := b.Ensure(ctx, nil)
				return err
			}},
			"admitting": {"-A QBS-SPOOF -s 10.137.0.99/32 -j DROP", "-D QBS-SPOOF -s 10.137.0.99/32 -j DROP",
				func(ctx context.Context, b *iptBackend) error { return b.Expel(ctx, "vif9.0", nil) }},
		} {
			t.Run(program+"/"+name, func(t *testing.T) {
				ctx := testContext(t)
				n := newTopology(t)
				n.admit(ctx, reopened(t, ctx, program))
				n.run("sh", "-c", program+" -t raw "+work.left)
				late := program + " -t raw " + work.late
				b := openStepped(t, ctx, program, func(string) error {
					if late != "" {
						n.run("sh", "-c", late)
						late = ""
					}
					return nil
				})
				must(t, work.do(ctx, b))
				if late != "" {
					t.Error("nothing was written, so nothing was tried")
				}
				settled(t, ctx, reopened(t, ctx, program))
			})
		}
	}
}

func TestWhoeverDiesWhileAdmittingIsSucceeded(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			n := newTopology(t)
			uplink := at{n.tap("a host on the uplink", n.server), resolverA, resolverA6}
			all := []netip.Addr{other4, other6, client4, client6, other4.Next(), other6.Next()}
			alive := false
			for changes := 0; !alive; changes++ {
				next := reopened(t, ctx, program)
				n.admit(ctx, next)
				err := diesAfter(t, ctx, program, changes).Admit(ctx, "vif2.0", all)
				if alive = err == nil; !alive && !errors.Is(err, errKilled) {
					t.Fatal(err)
				}
				_, err = next.Ensure(ctx, nil)
				must(t, err)
				settled(t, ctx, next)
				must(t, next.Admit(ctx, "vif2.0", all))
				n.mustPass(n.other, client4, client6, uplink)
				if list, err := next.Admitted(ctx); err != nil || len(list) != len(all) {
					t.Errorf("after %d changes admitted are %v, %v", changes, list, err)
				}
				settled(t, ctx, next)
			}
		})
	}
}

// counted wraps the programs of an iptables in scripts that write a line into a log each time.
func counted(t *testing.T, program string) (wrapped string, count func() int) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	for _, name := range []string{program, program + "-save", sixth(program), sixth(program) + "-save"} {
		real, err := exec.LookPath(name)
		must(t, err)
		script := fmt.Sprintf("#!/bin/sh\necho \"$@\" >> %s\nexec %s \"$@\"\n", log, real)
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	return filepath.Join(dir, program), func() int {
		text, err := os.ReadFile(log)
		must(t, err)
		must(t, os.Remove(log))
		return strings.Count(string(text), "\n")
	}
}

// A process costs some three milliseconds, and a hotplug program is waited for.
func TestHowManyProcessesAVifCosts(t *testing.T) {
	for _, program := range []string{"iptables-nft", "iptables-legacy"} {
		t.Run(program, func(t *testing.T) {
			ctx := testContext(t)
			newTopology(t)
			wrapped, count := counted(t, program)
			b, err := newIPTables(ctx, wrapped, Options{Log: testLog(t)})
			must(t, err)
			t.Logf("opening: %d processes", count())
			_, err = b.Ensure(ctx, []netip.Addr{virtual1, virtual6})
			must(t, err)
			t.Logf("loading: %d processes", count())
			for _, step := range []struct {
				name string
				do   func() error
				want int
			}{
				{"what is loaded is loaded again", func() error { _, err := b.Ensure(ctx, nil); return err }, 2},
				{"a new vif with an address of each family", func() error { return b.Admit(ctx, "vif1.0", []netip.Addr{client4, client6}) }, 6},
				{"the same again", func() error { return b.Admit(ctx, "vif1.0", []netip.Addr{client4, client6}) }, 2},
				{"both addresses move to another vif", func() error { return b.Admit(ctx, "vif2.0", []netip.Addr{client4, client6}) }, 6},
				{"a vif that has nothing goes", func() error { return b.Expel(ctx, "vif1.0", nil) }, 2},
				{"the vif goes", func() error { return b.Expel(ctx, "vif2.0", nil) }, 6},
			} {
				must(t, step.do())
				if got := count(); got != step.want {
					t.Errorf("%s: %d processes, want %d", step.name, got, step.want)
				}
			}
		})
	}
}
