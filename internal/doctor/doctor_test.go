package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"netvmd/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestResultsKeepTheirOrderAndALateCheckKeepsNobody(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	saying := func(f finding, err error) func(context.Context, *machine) (finding, error) {
		return func(context.Context, *machine) (finding, error) { return f, err }
	}
	list := []check{
		{id: "deaf", title: "A", look: func(context.Context, *machine) (finding, error) { <-release; return finding{}, nil }},
		{id: "late", title: "B", look: func(ctx context.Context, _ *machine) (finding, error) { <-ctx.Done(); return finding{}, ctx.Err() }},
		{id: "broken", title: "C", look: saying(finding{}, errors.New("two\n  lines"))},
		{id: "forbidden", title: "D", look: saying(finding{}, fmt.Errorf("open: %w", os.ErrPermission))},
		{id: "root's", title: "E", root: true, look: saying(fine("seen"), nil)},
		{id: "fine", title: "F", look: saying(fine("seen\nwell"), nil)},
	}
	for _, tc := range []struct {
		uid  int
		want []string
	}{
		{0, []string{"unknown deadline", "unknown deadline", "unknown two lines", "unknown open: permission denied", "ok seen", "ok seen well"}},
		{1000, []string{"unknown deadline", "unknown deadline", "unknown two lines", "unknown only root", "unknown only root", "ok seen well"}},
	} {
		results := diagnose(context.Background(), &machine{uid: tc.uid}, list, 50*time.Millisecond)
		for i, r := range results {
			state, words, _ := strings.Cut(tc.want[i], " ")
			if r.ID != list[i].id || r.Title != list[i].title || r.State != State(state) || !strings.Contains(r.Found, words) {
				t.Errorf("user %d: %+v; want %s", tc.uid, r, tc.want[i])
			}
		}
	}
}

func TestIDsAreStableWordsAndTitlesAreShort(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range slices.Concat(serviceChecks, dom0Checks, fileChecks, netvmChecks) {
		if !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(c.id) || seen[c.id] || c.title == "" || len(c.title) > 35 || c.look == nil {
			t.Errorf("%+v", c)
		}
		seen[c.id] = true
	}
}

func TestACancelledRunEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, r := range Run(ctx, Options{}) {
		if !slices.Contains([]State{OK, Warning, Failed, Unknown}, r.State) {
			t.Errorf("%+v", r)
		}
	}
}
