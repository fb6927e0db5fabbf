package dom0

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	heading = "Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label\n"
	zero    = "Domain-0                                     0  4081     4     r-----     133.7 00000000-0000-0000-0000-000000000000        -                -\n"
	one     = "5ba5c0de-0000-4000-8000-000000000001"
	boot    = "9f3b2b0e-6d2b-4c55-9d0b-1c53d0e6a001"
)

func TestDomainsAreReadStrictly(t *testing.T) {
	for _, tc := range []struct {
		name, line string
		want       Domain
		err        string
	}{
		{"one that runs", "sys-net                                      1   400     2     r-----      12.5 " + one + "        -                -",
			Domain{ID: 1, Name: "sys-net", UUID: one}, ""},
		{"one that waits, with a label", "a.b_c                                     3276   400     2     -b----   99999.5 " + one + "        -      system_u:x",
			Domain{ID: 3276, Name: "a.b_c", UUID: one}, ""},
		{"one that nobody has a turn of", "x                                            2   400     1     ------       0.0 " + one,
			Domain{ID: 2, Name: "x", UUID: one}, ""},
		{"one that is paused", "x                                            2   400     1     --p---       0.0 " + one + "        -                -",
			Domain{ID: 2, Name: "x", UUID: one, paused: true}, ""},
		{"one that has shut down", "x                                            2   400     1     ---s--       0.0 " + one + "        0                -",
			Domain{ID: 2, Name: "x", UUID: one, stopped: true}, ""},
		{"one that has crashed", "x                                            2   400     1     ---sc-       0.0 " + one + "        3                -",
			Domain{ID: 2, Name: "x", UUID: one, stopped: true}, ""},
		{"one that dies", "x                                            2     0     1     --ps-d       0.0 " + one + "        -                -",
			Domain{ID: 2, Name: "x", UUID: one, paused: true, stopped: true}, ""},
		{"one of a long name with blanks and numbers", "my domain 7 12 34 that has a name longer than 40 7   400     2     r-----      12.5 " + one,
			Domain{ID: 7, Name: "my domain 7 12 34 that has a name longer than 40", UUID: one}, ""},
		{"one without a state", "x 2 400 1 0.0 " + one, Domain{}, "is no domain"},
		{"one without a UUID", "x                                            2   400     1     r-----       0.0 -", Domain{}, "is no domain"},
		{"one that cannot be", "x                                        32752   400     1     r-----       0.0 " + one, Domain{}, "domid 32752"},
		{"domain 0 twice", "x                                            0   400     1     r-----       0.0 " + one, Domain{}, "listed twice"},
		{"an empty line", "", Domain{}, "is no domain"},
	} {
		domains, err := parseList(heading + zero + tc.line + "\n")
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), "xl list -v: line 3: ") || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, %v; want the error %q", tc.name, domains, err, tc.err)
			}
			continue
		}
		if err != nil || len(domains) != 2 || domains[1] != tc.want {
			t.Errorf("%s: %+v, %v; want %+v", tc.name, domains, err, tc.want)
		}
	}
	for _, text := range []string{"", "x\n", heading, zero, heading + "\n"} {
		if domains, err := parseList(text); err == nil {
			t.Errorf("%q is read as %v", text, domains)
		}
	}
}

func FuzzDomains(f *testing.F) {
	f.Add(heading + zero)
	f.Add(heading + zero + "sys-net   1   400     2     r-----      12.5 " + one + "        -                -\n")
	f.Fuzz(func(t *testing.T, text string) {
		domains, err := parseList(text)
		seen := map[int]bool{}
		for _, d := range domains {
			if d.ID < 0 || d.ID > maxDomID || seen[d.ID] || !uuid.MatchString(d.UUID) || d.Name == "" || strings.Contains(d.Name, "\n") {
				t.Errorf("%+v", d)
			}
			seen[d.ID] = true
		}
		if err == nil && !seen[0] {
			t.Error("no dom0, and no error")
		}
	})
}

// steps are one of each kind.
func steps() []step {
	address, gateway := netip.MustParseAddr("10.137.255.254"), netip.MustParseAddr("10.137.0.6")
	return []step{
		pause{Domain{ID: 3, Name: "work", UUID: one}},
		attach{Backend: Domain{ID: 1, Name: "sys-net", UUID: one}, MAC: mac, Address: address},
		configure{Interface: "eth0", MAC: mac, Address: address, Gateway: gateway, Servers: []netip.Addr{gateway}},
		resolve{Path: "/etc/resolv.conf", Saved: "/var/lib/netvmd/dom0-resolv.conf", Servers: []netip.Addr{gateway}},
	}
}

func TestAJournalSaysWhatWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), journalName)
	if _, err := openJournal(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no journal: %v", err)
	}
	j, err := newJournal(path, begin{boot, "1.2.3"})
	must(t, err)
	if _, err := newJournal(path, begin{boot, "1.2.3"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second journal: %v", err)
	}
	for _, s := range steps() {
		must(t, j.take(s))
	}
	must(t, j.undo(2))
	must(t, j.close())
	got, err := openJournal(path)
	must(t, err)
	if !reflect.DeepEqual(got.history, j.history) || !reflect.DeepEqual(got.steps, steps()) || !got.undone[2] || got.Version != "1.2.3" {
		t.Errorf("%+v, want %+v", got.history, j.history)
	}
	must(t, got.remove())
	must(t, got.close())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the journal is still there: %v", err)
	}
}

func TestAJournalThatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, journalName)
	must(t, os.Symlink("/etc/passwd", path))
	if _, err := openJournal(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link: %v", err)
	}
	if _, err := openJournal(dir); err == nil {
		t.Error("a folder is read as a journal")
	}
}

// wholeJournal has a step of each kind, the last one undone.
func wholeJournal(t testing.TB) []byte {
	var b bytes.Buffer
	lines := []line{{Begin: &begin{boot, "1"}}}
	for _, s := range steps() {
		lines = append(lines, s.line())
	}
	last := len(lines) - 2
	for _, l := range append(lines, line{Undone: &last}) {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(text, '\n'))
	}
	return b.Bytes()
}

// Wherever a crash cuts it, what is whole is read.
func TestAJournalThatWasCut(t *testing.T) {
	whole := wholeJournal(t)
	for length := range whole {
		h, read, err := parseJournal(whole[:length])
		lines := bytes.Count(whole[:length], []byte("\n"))
		if err != nil || read != bytes.LastIndexByte(whole[:length], '\n')+1 || len(h.steps) != min(max(lines-1, 0), 4) {
			t.Fatalf("of %d bytes, %d lines: %+v, %d, %v", length, lines, h, read, err)
		}
	}
	if h, _, err := parseJournal(append(bytes.Clone(whole), 0, 0, 0)); err != nil || len(h.steps) != 4 { // a file system's leftovers
		t.Errorf("zeros at the end: %+v, %v", h, err)
	}
}

func TestDamagedJournalsNameTheLine(t *testing.T) {
	head := `{"begin":{"boot":"` + boot + `","version":"1"}}` + "\n"
	for name, text := range map[string]string{
		"line 1: ":   "\n",
		`line 1: "`:  `{"undone":0}` + "\n",
		"line 1: b":  `{"begin":{"boot":"x","version":"1"}}` + "\n",
		"line 2: \"": head + head,
		"line 2: o":  head + `{}` + "\n",
		"line 2: s":  head + `{"undone":0}` + "\n",
		"line 2: j":  head + `{"pause":{"name":"x","extra":1}}` + "\n",
		"line 2: t":  head + `{"undone":0} {}` + "\n",
		"line 2: p":  head + `{"pause":{"domid":0,"name":"x","uuid":"` + one + `"}}` + "\n",
		"line 2: %":  head + `{"attach":{"mac":"x"}}` + "\n",
		"line 2: r":  head + `{"resolve":{"path":"etc","saved":"/x"}}` + "\n",
	} {
		want := strings.Replace(name, "%", `"`, 1)
		if _, _, err := parseJournal([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(wholeJournal(f))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, whole, err := parseJournal(text)
		if err != nil {
			return
		}
		if whole > len(text) || whole > 0 && (text[whole-1] != '\n' || h.Boot == "") {
			t.Errorf("%d of %d bytes, boot %q", whole, len(text), h.Boot)
		}
		for i := range h.undone {
			if i < 0 || i >= len(h.steps) {
				t.Errorf("step %d of %d was undone", i, len(h.steps))
			}
		}
		for _, s := range h.steps { // nothing in it may break those who print it
			_, _ = s.String(), s.reversal()
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
