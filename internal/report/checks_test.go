package report

import (
	"testing"

	"netvmd/internal/doctor"
)

func TestChecksSayWhatMendsThem(t *testing.T) {
	results := []doctor.Result{
		{ID: "forwarding", Title: "Forwarding", State: doctor.OK, Found: "on"},
		{ID: "base", Title: "Base firewall", State: doctor.Failed, Found: "none is loaded: the netvm and its AppVMs are open to each other",
			Remedy: "Run: netvmctl firewall load"},
		{ID: "hotplug", Title: "Xen's hotplug script", State: doctor.Warning, Found: "/etc/xen/scripts/vif-route-netvm\x1b[2J is missing", Remedy: "Install it"},
		{ID: "dns", Title: "AppVM DNS", State: doctor.Unknown, Found: "only root can find out", Remedy: "Run it as root: sudo netvmctl doctor"},
		{ID: "ports", Title: "Ports are closed to AppVMs", State: doctor.OK, Found: "all"},
	}
	golden(t, "checks", Checks(Screen{}, results))
	golden(t, "checks-colour", Checks(Screen{Width: 40, Colour: true}, results))
	golden(t, "checks-fine", Checks(Screen{}, results[:1]))
}
