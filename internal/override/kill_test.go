package override

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writerDirs names the variable that makes this program one that sets overrides until it is killed.
const writerDirs = "NETVMD_TEST_WRITER_DIRS"

func TestMain(m *testing.M) {
	if dirs := os.Getenv(writerDirs); dirs != "" {
		if err := writeForEver(dirs); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writeForEver says a word after the first round.
func writeForEver(dirs string) error {
	state, runtime, _ := strings.Cut(dirs, ":")
	s := Open(state, runtime)
	for i := 0; ; i++ {
		long := "192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6"[:10*(i%6)+9]
		for _, holder := range []string{":1", ":2", "!"} {
			if err := s.Set(of(holder + " " + long)); err != nil {
				return err
			}
		}
		if i == 0 {
			fmt.Println("written")
		}
	}
}

func TestKilledAtAnyInstantItLosesNothing(t *testing.T) {
	const kills = 50
	d := newDirs(t)
	for i := range kills {
		killedAfter(t, d, time.Duration(i)*97*time.Microsecond)
		s := d.open()
		if p := s.Problems(); len(p) > 0 || len(s.List()) != 3 {
			t.Fatalf("kill %d: %q, in force are %q", i, p, text(s))
		}
	}
}

// killedAfter runs a writer until so long after its first round.
func killedAfter(t *testing.T, d dirs, pause time.Duration) {
	t.Helper()
	writer := exec.Command("/proc/self/exe")
	writer.Env = append(os.Environ(), writerDirs+"="+d.state+":"+d.runtime)
	writer.Stderr = os.Stderr
	writer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := writer.StdoutPipe()
	must(t, err)
	must(t, writer.Start())
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Errorf("the writer ended by itself: %v", err)
	}
	time.Sleep(pause) // which instant it is, is the point
	must(t, writer.Process.Kill())
	_ = writer.Wait() // it was killed
}
