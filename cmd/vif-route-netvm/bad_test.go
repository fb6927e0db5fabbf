package main

import (
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// badNodes are values of the toolstack's nodes, and what the error must say of each.
var badNodes = map[string]struct{ key, value, words string }{
	"no address at all":                  {"ip", "", "ip: no address"},
	"only spaces":                        {"ip", "   ", "ip: no address"},
	"garbage":                            {"ip", "$(reboot)", `ip: "$(reboot)" is no plain IPv4 or IPv6 address`},
	"a word with an escape":              {"ip", "10.137.0.11\x1b[2J", `ip: "10.137.0.11\x1b[2J" is no plain`},
	"an address that goes on":            {"ip", "10.137.0.11\x00", `"10.137.0.11\x00" is no plain`},
	"an address that is far too long":    {"ip", strings.Repeat("1", 3000), "ip: \"1111"},
	"more addresses than there may be":   {"ip", strings.Repeat("10.137.0.11 ", 17), "ip: 17 addresses, of at most 16"},
	"a comma between":                    {"ip", "10.137.0.11,10.137.0.13", "10.137.0.11,10.137.0.13"},
	"the second one is garbage":          {"ip", "10.137.0.11 10.137.0.300", `"10.137.0.300"`},
	"one that is written with zeros":     {"ip", "10.137.0.011", `"10.137.0.011"`},
	"one that stands there twice":        {"ip", "10.137.0.11 10.137.0.11", "twice"},
	"a network":                          {"ip", "10.137.0.0/24", "a network"},
	"a network of one":                   {"ip", "10.137.0.11/32", "a network"},
	"multicast":                          {"ip", "224.0.0.251", "a multicast address"},
	"IPv6 multicast":                     {"ip", "10.137.0.11 ff02::1", "a multicast address"},
	"loopback":                           {"ip", "127.0.0.53", "a loopback address"},
	"IPv6 loopback":                      {"ip", "::1", "a loopback address"},
	"unspecified":                        {"ip", "0.0.0.0", "the unspecified address"},
	"IPv6 unspecified":                   {"ip", "::", "the unspecified address"},
	"this network":                       {"ip", "0.1.2.3", "reserved"},
	"broadcast":                          {"ip", "255.255.255.255", "reserved"},
	"link-local":                         {"ip", "169.254.1.1", "a link-local address"},
	"IPv6 link-local":                    {"ip", "fe80::fcff:ffff:feff:ffff", "a link-local address"},
	"one with a zone":                    {"ip", "fe80::1%vif1.0", "no plain"},
	"IPv4 in IPv6's clothes":             {"ip", "::ffff:10.137.0.11", "no plain"},
	"the gateway's":                      {"ip", "10.137.0.6", "the gateway's address"},
	"the IPv6 gateway's":                 {"ip", "fd09:24ef:4179::a89:6", "the gateway's address"},
	"a virtual DNS address":              {"ip", "10.139.1.2", "a virtual DNS address"},
	"another vif's, of a newer domain":   {"ip", "10.137.0.12", "10.137.0.12 belongs to vif2.0"},
	"another vif's IPv6":                 {"ip", "10.137.0.11 fd09:24ef:4179::a89:c", "fd09:24ef:4179::a89:c belongs to vif2.0"},
	"the netvm's own":                    {"ip", "192.0.2.10", "192.0.2.10 is the netvm's own address"},
	"the netvm's own IPv6":               {"ip", "2001:db8:1::10", "2001:db8:1::10 is the netvm's own address"},
	"the broadcast address of a network": {"ip", "192.0.2.255", "192.0.2.255 is the netvm's own address, or the broadcast address"},
	"no MAC":                             {"mac", "", "mac: no Ethernet address"},
	"a MAC that is garbage":              {"mac", "00:16:3e:5e:6c:zz", `mac: "00:16:3e:5e:6c:zz" is no Ethernet address`},
	"a MAC that is too short":            {"mac", "00:16:3e:5e:6c", "is no Ethernet address"},
	"a MAC that is too long":             {"mac", "00:16:3e:5e:6c:01:02:03", "is no Ethernet address"},
	"a MAC without end":                  {"mac", strings.Repeat("00:", 1000), "is no Ethernet address"},
	"a multicast MAC":                    {"mac", "01:00:5e:00:00:fb", "is a multicast address"},
	"the broadcast MAC":                  {"mac", "ff:ff:ff:ff:ff:ff", "is a multicast address"},
	"the MAC of zeros":                   {"mac", "00:00:00:00:00:00", "is no address of an AppVM's card"},
	"the backend's MAC":                  {"mac", "fe:ff:ff:ff:ff:ff", "is no address of an AppVM's card"},
	"a type with a newline":              {"type", "vif\nx", `type: "vif\nx"`},
	"a type that is far too long":        {"type", strings.Repeat("v", 100), "type: "},
}

func TestABadNodeIsRefusedAndNothingIsTouched(t *testing.T) {
	s := open(t, lab.Options{})
	s.attach(s.Personal)
	s.must(s.NetVM.AddCard(s.Work.Card))
	before := s.dump()
	for name, bad := range badNodes {
		t.Run(name, func(t *testing.T) {
			s := s.with(t)
			s.NetVM.WriteNodes(s.Work.Card)
			s.NetVM.XenStore.Set(s.Work.Card.Nodes()+"/"+bad.key, bad.value)
			s.mustRefuse(s.Work.Card, bad.words)
			same(t, "after online", s.dump(), before)
		})
	}
}

func TestWhatWasGoodBeforeStaysInForce(t *testing.T) {
	overBackends(t, func(s *scene) {
		s.attach(s.Personal, s.Work)
		before := s.dump()
		for _, key := range []string{"ip", "mac"} {
			s.NetVM.WriteNodes(s.Work.Card)
			s.NetVM.XenStore.Set(s.Work.Card.Nodes()+"/"+key, "garbage")
			s.mustRefuse(s.Work.Card, key+`: "garbage" is no`)
		}
		s.NetVM.WriteNodes(s.Work.Card)
		s.NetVM.XenStore.Set(s.Work.Card.Nodes()+"/ip", "10.137.0.12")
		s.mustRefuse(s.Work.Card, "10.137.0.12 belongs to vif2.0")
		same(s.t, "after three bad ones", s.dump(), before)
		s.connect(s.Work, s.Home.Host, lab.Internet)
	})
}

func TestMissingNodesAreRefused(t *testing.T) {
	s := open(t, lab.Options{})
	s.attach(s.Personal)
	s.must(s.NetVM.AddCard(s.Work.Card))
	before := s.dump()
	for key, words := range map[string]string{"ip": "ip: no address", "mac": "mac: no Ethernet address"} {
		s.NetVM.WriteNodes(s.Work.Card)
		s.NetVM.XenStore.Delete(s.Work.Card.Nodes() + "/" + key)
		s.mustRefuse(s.Work.Card, words)
		s.NetVM.WriteNodes(s.Work.Card)
		s.NetVM.XenStore.Refuse(s.Work.Card.Nodes()+"/"+key, "EACCES")
		s.mustRefuse(s.Work.Card, key+`": EACCES`)
		s.NetVM.XenStore.Refuse(s.Work.Card.Nodes()+"/"+key, "")
	}
	same(t, "after online", s.dump(), before)
}

func TestABadEnvironmentIsRefused(t *testing.T) {
	s := open(t, lab.Options{})
	s.attach(s.Personal)
	s.must(s.NetVM.AddCard(s.Work.Card))
	before := s.dump()
	for name, bad := range map[string]struct {
		vif, path, words string
		silent           bool // there are no nodes where it could be said
	}{
		"no name":                  {vif: "", words: `"" is no name of a vif`},
		"a path":                   {vif: "../x", words: `"../x" is no name of a vif`},
		"another device":           {vif: "eth0", words: `"eth0" is no name of a vif`},
		"the uplink":               {vif: "home0", words: "no name of a vif"},
		"no number of a card":      {vif: "vif1", words: "no name of a vif"},
		"a leading zero":           {vif: "vif01.0", words: "no name of a vif"},
		"a newline":                {vif: "vif1.0\n", words: "no name of a vif"},
		"too long a name":          {vif: "vif" + strings.Repeat("1", 500) + ".0", words: "no name of a vif"},
		"a domid that is too high": {vif: "vif32753.0", words: "the highest domid is 32752"},
		"a devid that is too high": {vif: "vif1.65536", words: "the highest devid 65535"},
		"no path":                  {vif: "vif1.0", path: "none", words: "XENBUS_PATH is not set", silent: true},
		"a path that leads astray": {vif: "vif1.0", path: "backend/vif/1/0/../../2/0", words: "XENBUS_PATH", silent: true},
		"a path to something else": {vif: "vif1.0", path: "/local/domain/0/name", words: "XENBUS_PATH", silent: true},
		"a path that is deeper":    {vif: "vif1.0", path: "backend/vif/1/0/ip", words: "XENBUS_PATH", silent: true},
		"the name of another vif":  {vif: "vif7.0", words: "does not lead to backend/vif/7/0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.with(t)
			s.NetVM.WriteNodes(s.Work.Card)
			s.NetVM.XenStore.Delete(s.Work.Card.Nodes() + "/hotplug-error")
			s.NetVM.XenStore.Delete(s.Work.Card.Nodes() + "/hotplug-status")
			environment := []string{"vif=" + bad.vif}
			switch bad.path {
			case "":
			case "none":
				environment = append(environment, "XENBUS_PATH=")
			default:
				environment = append(environment, "XENBUS_PATH="+bad.path)
			}
			if bad.silent {
				code, said := s.try(s.NetVM.HotplugCommand(s.ctx, "online", s.Work.Card), environment...)
				s.mustBeOneLine(code, said, bad.words)
			} else {
				s.mustRefuse(s.Work.Card, bad.words, environment...)
			}
			if bad.path == "" && !strings.HasPrefix(bad.words, "does not") {
				code, said := s.try(s.NetVM.HotplugCommand(s.ctx, "offline", s.Work.Card), environment...)
				s.mustBeOneLine(code, said, bad.words)
			}
			same(t, "afterwards", s.dump(), before)
		})
	}
}

func TestWrongUsageIsToldFromFailure(t *testing.T) {
	s := open(t, lab.Options{})
	for name, args := range map[string][]string{
		"no command": nil, "another command": {"add"}, "a word too many": {"online", "now"}, "an emulated card": {"online", "type_if=tap"},
		"an unknown flag": {"--fast", "online"},
	} {
		cmd := s.NetVM.HotplugCommand(s.ctx, "online", s.Work.Card)
		cmd.Args = append([]string{program}, args...)
		if code, said := s.try(cmd); code != 2 || said == "" {
			t.Errorf("%s: exit code %d, said %q; want 2, and why", name, code, said)
		}
	}
}
