package uplink

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestARecordThatMakesNoSenseIsNotFollowed(t *testing.T) {
	for name, text := range map[string]string{
		"it is no JSON":                 "{",
		"a device that cannot be":       `{"index": -1}`,
		"the connection of another":     `{"index": 2, "nm": "00000000-0000-0000-0000-000000000000"}`,
		"a file that is not absolute":   `{"resolv_conf": "etc/resolv.conf"}`,
		"a setting that is not ours":    `{"sysctls": {"kernel/core_pattern": "1"}}`,
		"a setting that leads away":     `{"sysctls": {"net/ipv6/conf/eth0/accept_ra/../../../../kernel/panic": "1"}}`,
		"a setting that is no number":   `{"sysctls": {"net/ipv6/conf/eth0/accept_ra": "|sh"}}`,
		"a route that leads nowhere":    `{"routes": [{"to": ""}]}`,
		"an address that is none":       `{"own": ["10.0.0.1"]}`,
		"more than any has":             strings.Repeat(" ", maxRecord) + `{}`,
		"an address that is a sentence": `{"hosts": ["the gateway"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := setup(t)
			path := filepath.Join(s.Dir, "eth0.json")
			if err := os.MkdirAll(s.Dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Unlink(withPatience(t), "eth0"); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want an error about %s", err, path)
			}
		})
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"index":2,"group":0,"routes":[{"to":"0.0.0.0/0","via":""}],"hosts":["10.137.0.6"],"own":["10.137.0.11/32"],"sysctls":{"net/ipv6/conf/eth0/accept_ra":"1"}}`))
	f.Add([]byte(`{"resolv_conf":"/etc/resolv.conf","resolved":true}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseRecord("eth0", text)
		if err != nil {
			return
		}
		for path := range r.Sysctls {
			if !strings.HasPrefix(path, "net/ipv") || strings.Contains(path, "..") {
				t.Errorf("a setting that is not ours: %s", path)
			}
		}
		for _, route := range r.Routes {
			_ = route.String()
		}
	})
}

func TestEachInterfaceHasAConnectionOfItsOwn(t *testing.T) {
	const want = "02b6f3b8-0f01-5677-89f9-a90485de7486"
	if is := uuidOf("eth0"); is != want || is == uuidOf("eth1") {
		t.Errorf("the UUIDs are %s and %s", is, uuidOf("eth1"))
	}
}
