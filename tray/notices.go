package tray

import (
	"time"

	"netvmd/tray/view"
)

// settleTime is how long what a notice says must hold before it is given, so that roaming does not shout.
const settleTime = 2 * time.Second

// tentatively is how many times longer it must hold when it may settle by itself: another Wi-Fi and its DHCP take seconds.
const tentatively = 5

// notices waits with each notice until it has settled.
type notices struct {
	settle  time.Duration
	told    view.Told
	waiting view.Notice      // the zero Notice: none
	settled <-chan time.Time // when the waiting one may be given
}

// see takes what is known now. A notice that no longer holds is dropped, and another one waits anew.
func (n *notices) see(k view.Known) {
	after, notice, due := n.told.Next(k)
	switch {
	case !due:
		n.told, n.waiting, n.settled = after, view.Notice{}, nil
	case notice != n.waiting:
		wait := n.settle
		if notice.Tentative {
			wait *= tentatively
		}
		n.waiting, n.settled = notice, time.After(wait)
	}
}

// give takes the notice that has settled.
func (n *notices) give(k view.Known) view.Notice {
	n.told, _, _ = n.told.Next(k)
	notice := n.waiting
	n.waiting, n.settled = view.Notice{}, nil
	return notice
}
