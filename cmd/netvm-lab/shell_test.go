package main

import (
	"bufio"
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// aShell is `netvm-lab shell`, not started yet, with programs built just now.
func aShell(t *testing.T) *exec.Cmd {
	t.Helper()
	folder := t.TempDir()
	build := exec.Command("go", "build", "-o", folder+"/", ".", "../netvmd", "../netvmctl", "../vif-route-netvm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	t.Cleanup(cancel)
	shell := exec.CommandContext(ctx, filepath.Join(folder, "netvm-lab"), "shell")
	shell.Env = append(shell.Environ(), "NO_COLOR=1")
	return shell
}

// Somebody who explores the lab puts a captive portal into the way, and takes it away again.
func TestAPortalIsShutAndOpenedInTheShell(t *testing.T) {
	// NetworkManager has looked when the command returns, and netvmd follows some milliseconds later.
	const await = `timeout 20 sh -c 'until netvmctl status | grep "$1"; do :; done' - `
	shell := aShell(t)
	shell.Stdin = strings.NewReader("lab-portal shut\n" + await + "'captive portal'\nnetvmctl status\nlab-portal open\n" +
		await + "'Online'\nlab-portal\necho code $?\nexit\n")
	out, err := shell.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, words := range []string{"to a captive portal: log in with a browser", "log in at http://203.0.113.80/", "✓ Online", "portal: netvm-lab portal shut|open", "code 2"} {
		if !strings.Contains(string(out), words) {
			t.Errorf("the shell prints no %q:\n%s", words, out)
		}
	}
}

// A shell that somebody uses ends by no SIGTERM of its own, but with the lab.
func TestTheShellEndsWithTheLab(t *testing.T) {
	shell := aShell(t)
	typed, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = typed.Close() }()
	printed, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints strings.Builder
	shell.Stderr = &complaints
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(typed, "echo it is $((6 * 7))\n"); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(printed); lines.Scan() && lines.Text() != "it is 42"; {
	}
	if err := shell.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = shell.Wait() // its code is looked at
	if code := shell.ProcessState.ExitCode(); code != exitInterrupted || !strings.Contains(complaints.String(), "everything is cleaned up") {
		t.Errorf("it ends with code %d, want %d, and says:\n%s", code, exitInterrupted, complaints.String())
	}
}
