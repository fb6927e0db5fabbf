// The tests of the program as a whole: in a network namespace, with a stand-in for xl and a XenStore of the lab.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"netvmd/internal/lab"
)

// programRoot makes this test program the one under test; what stands before the kernel's files is its value.
const programRoot = "NETVMD_TEST_DOM0_ROOT"

// init keeps the program on its first thread, which is the one that strace looks at.
func init() { runtime.LockOSThread() }

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "xl" {
		os.Exit(runStandIn(os.Args[1:]))
	}
	if root := os.Getenv(programRoot); root != "" {
		signal.Ignore(syscall.SIGPIPE)
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr, root))
	}
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// patience bounds each test.
const patience = 3 * time.Minute

const (
	boot      = "9f3b2b0e-6d2b-4c55-9d0b-1c53d0e6a001"
	otherBoot = "9f3b2b0e-6d2b-4c55-9d0b-1c53d0e6a002"
)

// scene is a dom0 with its domains.
type scene struct {
	t     *testing.T
	ctx   context.Context
	dir   string
	store *lab.XenStore
}

// newScene is a Qubes-like machine: the netvm, two AppVMs, one of them with a stub domain, and one that its user has paused.
func newScene(t *testing.T) *scene {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "dom0") // short enough for sockets below it
	s := &scene{t: t, ctx: ctx, dir: dir}
	s.must(err)
	t.Cleanup(func() { s.must(os.RemoveAll(dir)) })
	for _, dir := range []string{"bin", "state", "run", "proc/xen", "proc/sys/kernel/random"} {
		s.must(os.MkdirAll(filepath.Join(s.dir, dir), 0o755))
	}
	s.must(os.Symlink(executable(t), filepath.Join(s.dir, "bin/xl")))
	s.write("proc/xen/capabilities", "control_d\n")
	s.write("proc/sys/kernel/random/boot_id", boot+"\n")
	s.write("resolv.conf", "# dom0's own\nnameserver 192.0.2.1\n")
	s.must(os.Chmod(s.path("resolv.conf"), 0o640))
	s.write("netvmd.toml", fmt.Sprintf("state_dir = %q\nruntime_dir = %q\n[dns]\nresolv_conf = %q\n[store]\nxenstore_path = %q\n",
		s.path("state"), s.path("run"), s.path("resolv.conf"), s.path(xenstoreFile)))
	s.store, err = lab.StartXenStore(s.path(xenstoreFile))
	s.must(err)
	t.Cleanup(func() { _ = s.store.Close() })
	s.store.Set("/local/domain/1/qubes_netvm_gateway", "10.137.0.6")
	s.store.Set("/local/domain/1/qubes_netvm_secondary_dns", "10.137.0.254")
	s.guests(domain0, sysNet, guest{2, "sys-net-dm", uuidOf(2), 0, ""}, work, guest{4, "work-dm", uuidOf(4), 0, ""},
		guest{5, "vault", uuidOf(5), 1, ""}, guest{7, "ended", uuidOf(7), 0, "s"}, guest{9, "personal", uuidOf(9), 0, ""})
	return s
}

// Domains of every scene.
var (
	domain0 = guest{0, "Domain-0", "00000000-0000-0000-0000-000000000000", 0, ""}
	sysNet  = guest{1, "sys-net", uuidOf(1), 0, ""}
	work    = guest{3, "work", uuidOf(3), 0, ""}
)

func executable(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) path(name string) string { return filepath.Join(s.dir, name) }

func (s *scene) write(name, text string) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(name), []byte(text), 0o644))
}

func (s *scene) guests(guests ...guest) {
	s.t.Helper()
	s.must(writeGuests(s.dir, guests))
}

// change changes the domain with a name.
func (s *scene) change(name string, how func(*guest)) {
	s.t.Helper()
	guests, err := readGuests(s.dir)
	s.must(err)
	i := slices.IndexFunc(guests, func(g guest) bool { return g.Name == name })
	how(&guests[i])
	s.guests(guests...)
}

// goesWrong has something go wrong in the stand-in.
func (s *scene) goesWrong(r ruin) {
	s.t.Helper()
	s.must(writeJSON(s.path(ruinFile), r))
}

// command prepares the program.
func (s *scene) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, executable(s.t), append(args, "--config", s.path("netvmd.toml"))...)
	cmd.Env = append(os.Environ(), programRoot+"="+s.dir, standInDir+"="+s.dir, "PATH="+s.path("bin")+":"+os.Getenv("PATH"),
		"GORACE=atexit_sleep_ms=0") // at its end the race detector would wait for more races
	return cmd
}

// result is what a run said.
type result struct {
	code           int
	out, complaint string
}

func (s *scene) finish(cmd *exec.Cmd) result {
	s.t.Helper()
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	if strings.Contains(complaints.String(), "DATA RACE") {
		s.t.Error(complaints.String())
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), complaints.String()}
}

// runs wants the program to succeed.
func (s *scene) runs(args ...string) string {
	s.t.Helper()
	r := s.finish(s.command(args...))
	if r.code != 0 || r.complaint != "" {
		s.t.Fatalf("%q: exit code %d, said %q", args, r.code, r.complaint)
	}
	return r.out
}

// fails wants the program to fail, with these words in what it says.
func (s *scene) fails(code int, words string, args ...string) {
	s.t.Helper()
	r := s.finish(s.command(args...))
	if r.code != code || !strings.Contains(r.complaint, words) || strings.Count(r.complaint, "\n") != 1 {
		s.t.Errorf("%q: exit code %d, said %q; want %d and one line with %q", args, r.code, r.complaint, code, words)
	}
}

// view is all that the program changes.
func (s *scene) view() string {
	s.t.Helper()
	var b strings.Builder
	out, err := exec.CommandContext(s.ctx, "sh", "-exc", "ip -br link; ip -br address; ip route show table all; ip -6 route; ip neigh").CombinedOutput()
	s.must(err)
	b.Write(out)
	for _, name := range []string{"resolv.conf", domainsFile} {
		info, err := os.Lstat(s.path(name))
		s.must(err)
		var text []byte
		if !info.IsDir() {
			text, err = os.ReadFile(s.path(name))
			s.must(err)
		}
		fmt.Fprintf(&b, "%s %s\n%s\n", name, info.Mode(), text)
	}
	for _, dir := range []string{"state", "run", "run/uplinks"} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if !e.IsDir() && filepath.Ext(e.Name()) != ".lock" {
				fmt.Fprintf(&b, "%s/%s\n", dir, e.Name())
			}
		}
	}
	return b.String()
}

// mustBe wants everything to be as it was in a view.
func (s *scene) mustBe(before string) {
	s.t.Helper()
	if diff := cmp.Diff(before, s.view()); diff != "" {
		s.t.Errorf("it is not as before (-), but (+):\n%s", diff)
	}
}

// states tells of each domain how often it is paused.
func (s *scene) states() string {
	s.t.Helper()
	guests, err := readGuests(s.dir)
	s.must(err)
	var words []string
	for _, g := range guests[1:] {
		words = append(words, fmt.Sprintf("%s %d", g.Name, g.Pauses))
	}
	return strings.Join(words, ", ")
}

// asNobody has a command run without rights, also in a folder that its user may not enter.
func asNobody(cmd *exec.Cmd) *exec.Cmd {
	cmd.Path = "/proc/self/exe"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}

// said is what a running program prints.
type said struct {
	s     *scene
	lines *bufio.Scanner
}

// await waits for a line.
func (o said) await(line string) {
	o.s.t.Helper()
	for o.lines.Scan() {
		if o.lines.Text() == line {
			return
		}
	}
	o.s.t.Fatalf("it never says %q", line)
}

// follow starts a command; end waits for its end.
func (s *scene) follow(cmd *exec.Cmd) (out said, end func() result) {
	s.t.Helper()
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	pipe, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	out = said{s, bufio.NewScanner(pipe)}
	return out, func() result {
		for out.lines.Scan() {
		}
		_ = cmd.Wait() // the exit code says more
		return result{cmd.ProcessState.ExitCode(), "", complaints.String()}
	}
}

// configure adds to the configuration.
func (s *scene) configure(text string) {
	s.t.Helper()
	is, err := os.ReadFile(s.path("netvmd.toml"))
	s.must(err)
	s.write("netvmd.toml", string(is)+text)
}

// qubesDB gives dom0 the QubesDB of a netvm, as Qubes has it.
func (s *scene) qubesDB(netvm string) {
	s.t.Helper()
	s.must(os.MkdirAll(s.path("var/run/qubes"), 0o755))
	db, err := lab.StartQubesDB(s.path("var/run/qubes/qubesdb." + netvm + ".sock"))
	s.must(err)
	s.t.Cleanup(func() { _ = db.Close() })
	db.Set("/qubes-netvm-gateway", "10.137.0.7")
	db.Set("/qubes-netvm-primary-dns", "10.139.9.1")
}
