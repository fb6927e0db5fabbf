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
		rows = append(rows, wrapped("Why: %s", s.DNSReason)...)
	}
	rows = append(rows, servers(s.DNSServers)...)
	for _, d := range s.DNSDropped[:min(len(s.DNSDropped), mostDropped)] {
		rows = append(rows, wrapped("Not used: %s, %s", d.Addr, d.Reason)...)
	}
	for i, o := range s.DNSOverrides[:min(len(s.DNSOverrides), mostOverrides)] {
		rows = append(rows, wrapped("%s", override(i, o, now))...)
	}
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

// override says what the i-th newest override wants. The newest is in force.
func override(i int, o netvm.Override, now time.Time) string {
	state := "Waits"
	if i == 0 {
		state = "In force"
	}
	return fmt.Sprintf("%s: %s, %s", state, words.List(o.Servers), words.Holding(o, words.Stamp(o.Since, now)))
}
