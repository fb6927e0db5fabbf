package report

import (
	"fmt"
	"strings"

	"netvmd/internal/doctor"
	"netvmd/internal/words"
)

// outcomes say how a check's state looks, in the order in which the last line counts them.
var outcomes = []struct {
	state  doctor.State
	mark   mark
	symbol string
	words  string
}{
	{doctor.Failed, bad, symbols[bad], "failed"},
	{doctor.Warning, warn, symbols[warn], "could be better"},
	{doctor.Unknown, plain, "? ", "could not be found out"},
	{doctor.OK, plain, symbols[good], "fine"},
}

// Checks is what the doctor found, a check a line with what mends it below, and how many there are of each kind.
func Checks(screen Screen, results []doctor.Result) string {
	p := &page{screen: screen}
	counts := map[doctor.State]int{}
	for _, r := range results {
		counts[r.State]++
		for _, o := range outcomes {
			if o.state == r.State {
				p.write(o.symbol, say("%s: %s", r.Title, r.Found).as(o.mark))
			}
		}
		if r.Remedy != "" {
			p.write("  ", line{text: strings.TrimSpace(words.Arrow) + " " + r.Remedy})
		}
	}
	p.blank()
	var sums []string
	for _, o := range outcomes {
		if n := counts[o.state]; n > 0 {
			sums = append(sums, fmt.Sprintf("%d %s", n, o.words))
		}
	}
	p.write("", say("%s: %s.", words.Count(len(results), "check"), strings.Join(sums, ", ")))
	return p.String()
}
