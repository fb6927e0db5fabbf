package dbus

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// callsInWork bounds the calls of a kind that are worked on at a time; each costs a goroutine. What can be answered at
	// once is not counted: it is, one call after the other.
	callsInWork = 128
	// callsOfSender bounds those of one connection.
	callsOfSender = 8
	// questionsOfUser bounds the questions to polkit for one user, over all connections. A person answers one at a time.
	questionsOfUser = 8
	// maxServers bounds what is looked at in SetDnsOverride. The daemon's own bound is lower.
	maxServers = 64
	// floodPause is how often at most the log says that calls are refused.
	floodPause = time.Minute
)

// quota counts what is in work, by whom it is for.
type quota struct {
	each, all int // bounds

	mu    sync.Mutex
	of    map[string]int
	total int
}

// enter takes a place, if there is one. leave gives it back.
func (q *quota) enter(who string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.total >= q.all || q.of[who] >= q.each {
		return false
	}
	if q.of == nil {
		q.of = map[string]int{}
	}
	q.total++
	q.of[who]++
	return true
}

func (q *quota) leave(who string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	q.of[who]--
	if q.of[who] == 0 {
		delete(q.of, who)
	}
}

// floodLog says that calls are refused, and not for each of them.
type floodLog struct {
	log *slog.Logger

	mu      sync.Mutex
	refused int
	said    time.Time
}

func (f *floodLog) refuse(sender, sentence string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused++
	if time.Since(f.said) < floodPause {
		return
	}
	f.log.Warn("too much is asked on the bus", "sender", sender, "reason", sentence, "refused", f.refused)
	f.refused, f.said = 0, time.Now()
}
