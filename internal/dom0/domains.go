package dom0

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"netvmd/internal/words"
)

// Domain is a domain of Xen, as `xl list -v` shows it.
type Domain struct {
	ID      int    `json:"domid"`
	Name    string `json:"name"`
	UUID    string `json:"uuid"`
	paused  bool
	stopped bool // it has shut down, has crashed or is dying
}

// running tells whether the domain gets processor time.
func (d Domain) running() bool { return !d.paused && !d.stopped }

// same tells whether it is one and the same start of a domain: a domain that starts again keeps its UUID and gets another
// domid, and one day a domid comes again.
func (d Domain) same(o Domain) bool { return d.ID == o.ID && d.UUID == o.UUID }

func (d Domain) String() string { return fmt.Sprintf("domain %d, %s", d.ID, words.Harmless(d.Name)) }

// listLine is a line of `xl list -v` (Xen, tools/xl/xl_list.c): name, domid, memory, processors, six letters of state,
// seconds, UUID; what follows is of no interest. A name may hold blanks.
var listLine = regexp.MustCompile(`^(\S.*?) +(\d{1,5}) +\d+ +\d+ +([r-])([b-])([p-])([s-])([rscwS?-])([d-]) +\d+\.\d ` +
	uuidForm + `(?: .*)?$`)

const uuidForm = `([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})`

// maxDomID is the highest domid that a domain can have (Xen, DOMID_FIRST_RESERVED - 1).
const maxDomID = 0x7ff0 - 1

// parseList reads what `xl list -v` prints: a heading, then a line for each domain. A line that is none is an error: a
// domain that is overlooked would go on running.
func parseList(text string) ([]Domain, error) {
	heading, rest, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(heading, "Name ") || !strings.Contains(heading, "UUID") {
		return nil, fmt.Errorf("xl list -v: line 1: %.100q is not the heading that xl prints", heading)
	}
	var domains []Domain
	ids := map[int]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(rest, "\n"), "\n") {
		d, err := parseDomain(line)
		if err == nil && ids[d.ID] {
			err = fmt.Errorf("domain %d is listed twice", d.ID)
		}
		if err != nil {
			return nil, fmt.Errorf("xl list -v: line %d: %w", i+2, err)
		}
		ids[d.ID] = true
		domains = append(domains, d)
	}
	if !ids[0] {
		return nil, fmt.Errorf("xl list -v: domain 0 is not among the %d", len(domains))
	}
	return domains, nil
}

func parseDomain(line string) (Domain, error) {
	parts := listLine.FindStringSubmatch(line)
	if parts == nil {
		return Domain{}, fmt.Errorf("%.200q is no domain with its state and UUID", line)
	}
	id, err := strconv.Atoi(parts[2])
	if err != nil || id > maxDomID {
		return Domain{}, fmt.Errorf("domid %s: the highest is %d", parts[2], maxDomID)
	}
	return Domain{
		Name: parts[1], ID: id, UUID: parts[9],
		paused: parts[5] == "p", stopped: parts[6] == "s" || parts[8] == "d",
	}, nil
}

// find gives the domain for which something is so.
func find(domains []Domain, is func(Domain) bool) (Domain, bool) {
	for _, d := range domains {
		if is(d) {
			return d, true
		}
	}
	return Domain{}, false
}

// names lists domains for people.
func names(domains []Domain) string {
	list := make([]string, len(domains))
	for i, d := range domains {
		list[i] = d.Name
	}
	return words.Harmless(strings.Join(list, ", "))
}
