package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Somebody who explores the lab puts a captive portal into the way, and takes it away again.
func TestAPortalIsShutAndOpenedInTheShell(t *testing.T) {
	folder := t.TempDir()
	build := exec.Command("go", "build", "-o", folder+"/", ".", "../netvmd", "../netvmctl", "../vif-route-netvm")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	// NetworkManager has looked when the command returns, and netvmd follows some milliseconds later.
	const await = `timeout 20 sh -c 'until netvmctl status | grep "$1"; do :; done' - `
	shell := exec.CommandContext(ctx, filepath.Join(folder, "netvm-lab"), "shell")
	shell.Stdin = strings.NewReader("lab-portal shut\n" + await + "'captive portal'\nnetvmctl status\nlab-portal open\n" +
		await + "'Online'\nlab-portal\necho code $?\nexit\n")
	shell.Env = append(shell.Environ(), "NO_COLOR=1")
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
