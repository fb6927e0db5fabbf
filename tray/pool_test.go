package tray

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"netvmd/tray/view"
)

func newPool(t *testing.T) (*pool, *fakeKit) {
	kit := newFakeKit(t)
	return &pool{kit: kit, listen: func(*place) {}}, kit
}

// vifs is a row with a submenu of so many rows; 0 = it is hidden.
func vifs(n int) view.Row {
	var row view.Row
	for i := 1; i <= n; i++ {
		row.Text = fmt.Sprintf("%d vifs", n)
		row.Rows = append(row.Rows, view.Row{Text: fmt.Sprintf("vif%d.0", i)})
	}
	return row
}

func TestOnlyDifferencesAreSent(t *testing.T) {
	before := []view.Row{{Text: "online"}, {Separator: true}, {}, vifs(2), {Text: "Refresh", Action: view.Refresh}}
	for name, test := range map[string]struct {
		after []view.Row
		want  []string
	}{
		"nothing for the same rows":                      {before, nil},
		"one update for one text":                        {[]view.Row{{Text: "offline"}, {Separator: true}, {}, vifs(2), before[4]}, []string{"set offline"}},
		"one update for a row that is no longer to do":   {[]view.Row{before[0], {Separator: true}, {}, vifs(2), {Text: "Refresh", Disabled: true}}, []string{"set Refresh"}},
		"one update for a row that comes into sight":     {[]view.Row{before[0], {Separator: true}, {Text: "1 problem"}, vifs(2), before[4]}, []string{"set 1 problem"}},
		"one call for a row with all its submenu":        {[]view.Row{before[0], {Separator: true}, {}, vifs(0), before[4]}, []string{"hide 2 vifs"}},
		"what a submenu has more":                        {[]view.Row{before[0], {Separator: true}, {}, vifs(3), before[4]}, []string{"set 3 vifs", "append vif3.0"}},
		"what a submenu has less":                        {[]view.Row{before[0], {Separator: true}, {}, vifs(1), before[4]}, []string{"set 1 vifs", "hide vif2.0"}},
		"nothing for another action of the same wording": {[]view.Row{before[0], {Separator: true}, {}, vifs(2), {Text: "Refresh", Action: view.Edit}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p, kit := newPool(t)
			p.show(before)
			kit.taken()
			p.show(test.after)
			if diff := cmp.Diff(test.want, kit.taken()); diff != "" {
				t.Errorf("sent (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(drawn(test.after, ""), kit.String()); diff != "" {
				t.Errorf("seen (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARowThatWasHiddenComesBackWithWhatItHadBelow(t *testing.T) {
	p, kit := newPool(t)
	p.show([]view.Row{vifs(3)})
	p.show([]view.Row{vifs(0)})
	kit.taken()
	p.show([]view.Row{vifs(3)})
	if got := kit.taken(); !slices.Equal(got, []string{"set 3 vifs"}) {
		t.Errorf("sent %q", got)
	}
}

// Whatever followed whatever, the menu looks as if it had been made anew.
func TestAnySequenceOfMenusIsSeenAsItIs(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	p, kit := newPool(t)
	for n := 0; n < 2000; n++ {
		rows := randomMenu(random)
		p.show(rows)
		if diff := cmp.Diff(drawn(rows, ""), kit.String()); diff != "" {
			t.Fatalf("menu %d (-want +got):\n%s", n, diff)
		}
	}
}

// randomMenu keeps to what view.Row promises: plain rows, separators and rows with a submenu keep their places.
func randomMenu(random *rand.Rand) []view.Row {
	plain := func() view.Row {
		row := view.Row{Text: []string{"", "a", "b", "c"}[random.Intn(4)]}
		row.Disabled = row.Text != "" && random.Intn(2) == 0
		return row
	}
	group := vifs(random.Intn(4))
	for i := range group.Rows {
		group.Rows[i].Rows = vifs(1 + random.Intn(3)).Rows
	}
	return []view.Row{plain(), plain(), {Separator: true}, group, vifs(random.Intn(5)), {Separator: true}, plain()}
}

func TestAPlaceIsListenedToOnceAndFromItsFirstActionOn(t *testing.T) {
	p, _ := newPool(t)
	var heard []*place
	p.listen = func(at *place) { heard = append(heard, at) }
	for _, row := range []view.Row{{Text: "nothing"}, {}, {Text: "Log in", Action: view.Login}, {}, {Text: "Log in", Action: view.Login}} {
		p.show([]view.Row{row})
	}
	if len(heard) != 1 || heard[0].action != view.Login {
		t.Errorf("listened to %d places", len(heard))
	}
	if p.show([]view.Row{{}}); heard[0].action != view.None {
		t.Errorf("a hidden row is for %q", heard[0].action)
	}
}
