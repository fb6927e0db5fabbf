package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnloadingTakesAllRulesAway(t *testing.T) {
	overBackends(t, func(b *box) {
		b.shell("nft add table inet admin; sysctl -q -w net.ipv4.icmp_ratelimit=2000")
		b.says(b.ctl(exitFine, "firewall", "unload"), "nothing is loaded")
		b.ctl(exitFine, "firewall", "load")
		b.says(b.ctl(exitFine, "firewall", "unload"), b.backend+": table ", "deleted", "icmp_ratelimit set to 2000 again")
		b.says(b.ctl(exitFine, "firewall", "unload"), "nothing is loaded")
		b.says(b.ctl(exitFailed, "firewall", "check"), "10.139.1.1 is neither led to a resolver nor refused")
		b.says(b.ctl(exitFine, "firewall", "show"), "No rules of netvmd are loaded")
		b.shell("nft list table inet admin")

		b.ctl(exitFine, "firewall", "load")
		var said struct{ Changes []string }
		for _, want := range []bool{true, false} {
			out := b.ctl(exitFine, "firewall", "unload", "--json")
			if err := json.Unmarshal([]byte(out), &said); err != nil || said.Changes == nil || len(said.Changes) > 0 != want {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
}

func TestUnloadingSparesAppVMs(t *testing.T) {
	overBackends(t, func(b *box) {
		b.write("run/vifs/vif4.0.json", record)
		b.shell("ip link add vif4.0 type veth peer name peer0")
		b.t.Cleanup(func() { b.shell("ip link del vif4.0") })
		b.ctl(exitFine, "firewall", "load")
		b.says(b.complaint("firewall", "unload"), "vif4.0: ", "shut them down first, or use --force")
		b.ctl(exitFine, "firewall", "check")
		b.says(b.ctl(exitFine, "firewall", "unload", "--force"), "deleted")
		b.says(b.ctl(exitFailed, "firewall", "check"), "vif4.0 may not send from 10.137.0.11")
		b.ctl(exitFine, "firewall", "load") // by the record
		b.ctl(exitFine, "firewall", "check")
	})
}

// complaint runs netvmctl, wants it to fail with one line, and gives that.
func (b *box) complaint(args ...string) string {
	b.t.Helper()
	var out, complaints strings.Builder
	code := run(append([]string{"--config", filepath.Join(b.dir, "netvmd.toml")}, args...), &out, &complaints)
	if code != exitFailed || out.Len() > 0 || strings.Count(complaints.String(), "\n") != 1 {
		b.t.Errorf("netvmctl %q: exit %d\n%s%s", args, code, out.String(), complaints.String())
	}
	return complaints.String()
}
