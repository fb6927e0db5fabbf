package view

import (
	"fmt"
	"time"

	"netvmd/internal/netvm"
	"netvmd/internal/words"
)

const (
	targetPlaces  = 4
	mostTargets   = 20 // listed in the submenu for those without a place
	mostServers   = 8
	mostDropped   = 8
	mostOverrides = 4
)

// dnsRows are where the resolvers come from, and where each virtual address leads.
func dnsRows(k Known) []Row {
	if !k.Running {
		return append(make([]Row, targetPlaces+2), say("AppVM DNS goes where it was led last"))
	}
	s := k.Status
	targets := s.DNSTargets[:min(len(s.DNSTargets), targetPlaces)]
	rows := append([]Row{source(s, k.Now)}, places(each(targets, targetPlaces, target), targetPlaces)...)
	rest := s.DNSTargets[len(targets):]
	rows = append(rows, under(fmt.Sprintf("%d more", len(rest)), each(rest, mostTargets, target)))
	if len(s.DNSTargets) == 0 {
		return append(rows, say("AppVM DNS is not led anywhere yet"))
	}
	return append(rows, Row{})
}

func target(t netvm.Target) Row { return say("%s%s%s", t.Virtual, words.Arrow, words.Led(t)) }

// source says where the resolvers come from and, below, why, and what else there is.
func source(s netvm.Status, now time.Time) Row {
	if len(s.DNSTargets) == 0 && s.DNSSource == "" {
		return Row{}
	}
	var rows []Row
	if s.DNSReason != "" {
		rows = append(rows, wrapped("Why: "+s.DNSReason)...)
	}
	rows = append(rows, servers(s.DNSServers)...)
	rows = append(rows, sentences(dropped(s.DNSDropped), mostDropped)...)
	rows = append(rows, sentences(overrides(s.DNSOverrides, now), mostOverrides)...)
	if !s.ChangedAt.IsZero() {
		rows = append(rows, say("Changed %s, took %s", words.Stamp(s.ChangedAt, now), words.Took(s.ApplyTime)))
	}
	return under("AppVM DNS from "+words.Source(s.DNSSource), rows)
}

func servers(list []netvm.Resolver) []Row {
	if len(list) == 0 {
		return []Row{say("No resolver is known")}
	}
	return each(list, mostServers, func(r netvm.Resolver) Row { return say("Resolver %s", r.Addr) })
}

func dropped(list []netvm.Dropped) []string {
	out := make([]string, len(list))
	for i, d := range list {
		out[i] = fmt.Sprintf("Not used: %s, %s", d.Addr, d.Reason)
	}
	return out
}

// overrides says what each override wants, and whose it is. The newest is in force, and the first.
func overrides(list []netvm.Override, now time.Time) []string {
	out := make([]string, len(list))
	state := "In force"
	for i, o := range list {
		out[i] = fmt.Sprintf("%s: %s, %s", state, words.List(o.Servers), words.Holding(o, words.Stamp(o.Since, now)))
		state = "Waits"
	}
	return out
}
