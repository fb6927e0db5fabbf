package main

import (
	"context"
	"fmt"
	"log/slog"

	"netvmd/internal/netvm"
	"netvmd/internal/override"
	"netvmd/internal/vif"
)

// callers answers what callers on the bus ask; who may ask is the service's business.
type callers struct {
	settings  *settings
	overrides *override.Stack
	tally     func(context.Context) (netvm.Tally, error)
	log       *slog.Logger
}

// Refresh implements dbus.Daemon.
func (c *callers) Refresh(ctx context.Context) (changed bool, err error) {
	return c.settings.engine.Refresh(ctx)
}

// SetOverride implements dbus.Daemon. When the kernel does not take it in time, the override stays and is tried again: the
// error says so.
func (c *callers) SetOverride(ctx context.Context, o netvm.Override) error {
	if err := c.settings.engine.CheckServers(ctx, o.Servers); err != nil {
		return err
	}
	if err := c.overrides.Set(o); err != nil {
		return err
	}
	c.log.Info("DNS override", "resolver", o.Servers, "by", o.By, "persistent", o.Persistent)
	return c.settle(ctx)
}

// ClearOverride implements dbus.Daemon.
func (c *callers) ClearOverride(ctx context.Context, holder string) error {
	changed, err := c.overrides.Clear(holder)
	if err != nil || !changed {
		return err
	}
	c.log.Info("DNS override taken back", "caller", holder)
	return c.settle(ctx)
}

// settle returns when the kernel has what the overrides say now.
func (c *callers) settle(ctx context.Context) error {
	c.settings.tell()
	if err := c.settings.engine.Settle(ctx); err != nil {
		return fmt.Errorf("this is noted, but not in force yet: %w", err)
	}
	return nil
}

// Holders implements dbus.Daemon.
func (c *callers) Holders() []string { return c.overrides.Holders() }

// Left implements dbus.Daemon.
func (c *callers) Left(holder string) {
	if c.overrides.Left(holder) {
		c.log.Info("DNS override ended: its caller left the bus", "caller", holder)
		c.settings.tell()
	}
}

// Routes implements dbus.Daemon.
func (c *callers) Routes(context.Context) ([]netvm.Route, error) { return vif.Routes() }

// Tally implements dbus.Daemon.
func (c *callers) Tally(ctx context.Context) (netvm.Tally, error) { return c.tally(ctx) }
