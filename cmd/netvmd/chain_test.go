package main

import (
	"testing"

	"netvmd/internal/lab"
)

// chain is a scene of three levels: the netvm, a proxy that it serves, and an AppVM that the proxy serves.
type chain struct {
	*scene
	proxy *lab.Proxy
	inner *lab.AppVM
}

// openChain opens one with the proxy's bus, and neither netvmd yet.
func openChain(t *testing.T, o, proxy lab.Options) *chain {
	t.Helper()
	s := open(t, o)
	c := &chain{scene: s}
	var err error
	c.proxy, err = s.Proxy(proxy)
	s.must(err)
	s.must(c.proxy.Uplink.Attach(s.ctx))
	s.must(c.proxy.StartBus(s.ctx))
	c.inner, err = s.AppVM("inner", 14, c.proxy.NetVM)
	s.must(err)
	s.must(c.inner.Attach(s.ctx))
	return c
}
