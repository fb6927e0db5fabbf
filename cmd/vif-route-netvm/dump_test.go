package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// dumpScript prints all of the netvm's network that a vif could change, a section for each thing.
const dumpScript = `
section() { echo "== $1"; shift; "$@" 2>&1 | sed -E 's/^[0-9]+: //; s/@if[0-9]+/@peer/; s/expires [0-9]+sec//; s/ used [0-9/]+| probes [0-9]+//g' | sort; }
section link ip -o -d link
section address ip -o address
section route ip route show table all
section route6 ip -6 route show table all
section neighbour ip neighbour show nud permanent
section neighbour6 ip -6 neighbour show nud permanent
section rule ip rule
section namespaces ip netns list
section settings sh -c 'cd /proc/sys/net && grep -H "" ipv4/ip_forward ipv6/conf/all/forwarding ipv4/icmp_ratelimit ipv6/icmp/ratelimit ipv4/conf/vif*/* ipv6/conf/vif*/* 2>/dev/null | grep -v stable_secret'
echo "== nftables"; nft -s list ruleset
`

// changing is what differs between two dumps of the same.
var changing = regexp.MustCompile(`(?m) qdisc \S+| addrgenmode \S+| state [A-Z]+ |NO-CARRIER,|,LOWER_UP| mtu_expires.*$|^:.* \[[0-9]+:[0-9]+\]$|qlen [0-9]+ | gso_\S+ \S+| tso_\S+ \S+| gro_\S+ \S+`)

// dump is the netvm's network, our files and the flows of AppVMs, as text.
func (s *scene) dump() string {
	s.t.Helper()
	s.must(s.NetVM.Do(func() error { return lab.AwaitOwn(s.ctx) }))
	script := dumpScript
	switch s.NetVM.Backend() {
	case lab.IPTablesLegacy:
		script += "echo '== iptables'; iptables-legacy-save | grep -v '^#'; ip6tables-legacy-save | grep -v '^#'\n"
	case lab.IPTablesNFT:
		script += "echo '== iptables'; iptables-nft-save | grep -v '^#'; ip6tables-nft-save | grep -v '^#'\n"
	}
	return changing.ReplaceAllString(s.netvm(script), "") + "== flows\n" + s.flows() + "== files\n" + s.files()
}

// flows lists the flows of the AppVMs' ranges, without what changes by itself.
func (s *scene) flows() string {
	s.t.Helper()
	var out []string
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, line := range strings.Split(s.netvm("conntrack -L -f "+family+" 2>/dev/null"), "\n") {
			if strings.Contains(line, "=10.137.") || strings.Contains(line, "=fd09:24ef:4179::a89:") {
				fields := strings.Fields(line)
				out = append(out, strings.Join(slices.Delete(fields, 2, 3), " ")) // the third is the seconds that are left
			}
		}
	}
	slices.Sort(out)
	return strings.Join(append(out, ""), "\n")
}

// passing is what differs between the files of two equal states: when, and which transaction was the last.
var passing = regexp.MustCompile(`"since": "[^"]*"|nf_tables generation .*\n`)

// files lists the program's files with their contents.
func (s *scene) files() string {
	s.t.Helper()
	var out strings.Builder
	root := filepath.Join(filepath.Dir(s.NetVM.NetvmdConfig()), "run")
	s.must(filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&out, "%s %s\n", strings.TrimPrefix(path, root), passing.ReplaceAll(text, nil))
		return err
	}))
	return out.String()
}

// inAnyOrder sorts a dump: iptables keeps its rules in the order in which they came.
func inAnyOrder(dump string) string {
	lines := strings.Split(dump, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// same wants two dumps to be equal, and else shows the lines that differ.
func same(t *testing.T, what, is, want string) {
	t.Helper()
	if is != want {
		t.Errorf("%s:\n%s", what, differences(is, want))
	}
}

// differences lists the lines that one of two texts has more often than the other.
func differences(is, want string) string {
	count := map[string]int{}
	for _, line := range strings.Split(want, "\n") {
		count[line]++
	}
	for _, line := range strings.Split(is, "\n") {
		count[line]--
	}
	var out []string
	for line, n := range count {
		for ; n > 0; n-- {
			out = append(out, "missing: "+line)
		}
		for ; n < 0; n++ {
			out = append(out, "surplus: "+line)
		}
	}
	if len(out) == 0 {
		out = []string{"the same lines in another order"}
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}
