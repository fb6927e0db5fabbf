package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"netvmd/internal/lab"
	"netvmd/internal/lab/desktop"
)

// buildTools builds what `netvm-lab tray` runs, where every user may run it and a lab in this lab does not cover it.
func buildTools(t *testing.T) (folder string) {
	t.Helper()
	folder, err := os.MkdirTemp("", "netvm-lab-tray")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	out, err := exec.Command("go", "build", "-o", folder+"/", ".", "../netvmd", "../netvm-tray", "../vif-route-netvm").CombinedOutput()
	if err := errors.Join(err, os.Chmod(folder, 0o755)); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return folder
}

// session makes the folder that a user has while logged in.
func session(t *testing.T, u lab.User) {
	t.Helper()
	folder := filepath.Join("/run/user", strconv.Itoa(int(u.UID)))
	if err := errors.Join(os.MkdirAll(folder, 0o700), os.Chmod(filepath.Dir(folder), 0o755), os.Chown(folder, int(u.UID), int(u.GID))); err != nil {
		t.Fatal(err)
	}
}

// reachable gives a display, which has an abstract socket of its network namespace alone, one in the file system as well, as
// a real desktop's has, and returns its name there.
func reachable(t *testing.T, display string) string {
	t.Helper()
	const sockets = "/tmp/.X11-unix/X"
	if err := os.MkdirAll(filepath.Dir(sockets), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	// Far above what the X servers of this machine, whose folder it is, count up to from 0.
	number := strconv.Itoa(10_000 + os.Getpid())
	door, err := net.Listen("unix", sockets+number)
	if err := errors.Join(err, os.Chmod(sockets+number, 0o777)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := door.Close(); err != nil {
			t.Error(err)
		}
	})
	go func() {
		for {
			client, err := door.Accept()
			if err != nil {
				return // closed
			}
			server, err := net.Dial("unix", "@"+sockets+strings.TrimPrefix(display, ":"))
			if err != nil {
				_ = client.Close() // which the client tells
				continue
			}
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				go func(from, to net.Conn) {
					_, _ = io.Copy(to, from) // when one side hangs up, so does the other
					_ = to.Close()
				}(way[0], way[1])
			}
		}
	}()
	return ":" + number
}

func TestTrayOnTheCallersDesktop(t *testing.T) {
	tools := buildTools(t)
	session(t, lab.Nobody)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	d, err := desktop.New(ctx, desktop.Options{User: lab.Nobody, NoBus: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := d.StartPanel(ctx, desktop.Trayer, 24); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(ctx, filepath.Join(tools, "netvm-lab"), "tray")
	// As after sudo: root's home, and nothing of the session but the display.
	cmd.Env = append(os.Environ(), "DISPLAY="+reachable(t, d.Screen.Display), fmt.Sprintf("SUDO_UID=%d", lab.Nobody.UID))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ types, title string }{
		{"", `netvm: Online through Ethernet "home"; AppVM DNS is served`},
		{"nmcli connection down home\n", "netvm: Offline; AppVM DNS is refused"},
		{"nmcli connection up office\n", `netvm: Online through Ethernet "office"; AppVM DNS is served`},
	} {
		_, err := io.WriteString(keyboard, step.types)
		if err == nil {
			err = d.Screen.AwaitTitle(ctx, step.title)
		}
		if err != nil {
			t.Fatalf("%v; netvm-lab said:\n%s", errors.Join(err, keyboard.Close(), cmd.Wait()), out.String())
		}
	}
	if _, err := io.WriteString(keyboard, "ps -o user= -C netvm-tray\nexit\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "\nnobody\n") {
		t.Errorf("%v; netvm-tray did not run as the caller:\n%s", err, out.String())
	}
	if icons, err := d.Screen.Icons(); err != nil || len(icons) > 0 {
		t.Errorf("the shell has ended, and there are the icons %v (%v)", icons, err)
	}
}

func TestTrayNeedsADesktop(t *testing.T) {
	for _, tc := range []struct{ name, display string }{
		{"without a display", ""},
		{"on a display behind a network, which the lab does not have", "localhost:10.0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("DISPLAY", tc.display)
			if _, err := caller(); !errors.Is(err, errNoDesktop) {
				t.Errorf("error %v, want %v", err, errNoDesktop)
			}
		})
	}
}
