package main

import (
	"context"
	"sync"

	"netvmd/internal/config"
	"netvmd/internal/engine"
	"netvmd/internal/store"
	"netvmd/internal/vif"
)

// settings brings together what the configuration and the store say; the configuration wins.
type settings struct {
	store *store.Follower
	vifs  *vif.Census

	mu   sync.Mutex // held while the engine is told, so that the newest is told last
	conf config.Config
}

// follow tells the engine of every change of the store's until ctx ends.
func (s *settings) follow(ctx context.Context, e *engine.Engine) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.store.Changed():
		}
		s.mu.Lock()
		e.Configure(s.merged())
		s.mu.Unlock()
	}
}

// reload puts another configuration in force.
func (s *settings) reload(e *engine.Engine, conf config.Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conf = conf
	e.Configure(s.merged())
	s.vifs.Configure(s.onlyWarn())
}

// onlyWarn: what others changed is said, and left.
func (s *settings) onlyWarn() bool { return s.conf.Firewall.OnDrift == config.Warn }

// merged is what the engine goes by.
func (s *settings) merged() engine.Settings {
	fromStore, problems := s.store.Take()
	return engine.Settings{
		Virtual:     s.conf.DNS.VirtualOr(fromStore.Virtual),
		Servers:     s.conf.DNS.Servers,
		Source:      string(s.conf.DNS.Source),
		PassThrough: fromStore.PassThrough,
		OnlyWarn:    s.onlyWarn(),
		Problems:    problems,
	}
}
