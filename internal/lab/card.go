package lab

import (
	"context"
	"fmt"
	"net"
	"os/exec"

	"github.com/vishvananda/netlink"
)

// Card is an AppVM's network card, as the toolstack plugs it in.
type Card struct {
	DomID, DevID int
	MAC          string
	IP           string // the node's text: addresses with spaces between
	Peer         *Host  // where the frontend appears
	PeerName     string // under this name
	Script       string // that Xen is to run; "" = ours
}

// ourScript is where vif-route-netvm is installed for Xen.
const ourScript = "/etc/xen/scripts/vif-route-netvm"

func (c Card) script() string {
	if c.Script == "" {
		return ourScript
	}
	return c.Script
}

// Name is that of the netvm's end.
func (c Card) Name() string { return fmt.Sprintf("vif%d.%d", c.DomID, c.DevID) }

// Nodes is the card's folder in XenStore, relative to the netvm's own.
func (c Card) Nodes() string { return fmt.Sprintf("backend/vif/%d/%d", c.DomID, c.DevID) }

// AddCard does what Xen does before it runs the hotplug script: the netvm's end is there, down and in no group, the
// frontend's end is up, and the nodes stand in XenStore.
func (v *NetVM) AddCard(c Card) error {
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: c.Name(), TxQLen: 1000}, PeerName: c.PeerName,
		PeerNamespace: netlink.NsFd(int(c.Peer.netNS.Fd()))}
	var err error
	if veth.HardwareAddr, err = net.ParseMAC(VifMAC); err != nil {
		return fmt.Errorf("%s: %w", c.Name(), err)
	}
	if veth.PeerHardwareAddr, err = net.ParseMAC(c.MAC); err != nil {
		return fmt.Errorf("%s: %w", c.Name(), err)
	}
	if err := v.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("%s: add %s to %s of %s: %w", v.Name, c.Name(), c.PeerName, c.Peer.Name, err)
	}
	v.WriteNodes(c)
	return c.Peer.setLink(c.PeerName, true)
}

// WriteNodes writes what libxl writes about a card.
func (v *NetVM) WriteNodes(c Card) {
	for key, value := range map[string]string{
		"frontend": fmt.Sprintf("/local/domain/%d/device/vif/%d", c.DomID, c.DevID), "frontend-id": fmt.Sprint(c.DomID),
		"online": "1", "state": "2", "script": c.script(), "mac": c.MAC, "ip": c.IP,
		"bridge": "xenbr0", "handle": fmt.Sprint(c.DevID), "type": "vif",
	} {
		v.XenStore.Set(c.Nodes()+"/"+key, value)
	}
}

// RemoveCard takes the device away, wherever in the netvm it is: that is what Xen does before it runs the hotplug script
// for the last time.
func (v *NetVM) RemoveCard(c Card) error {
	frontend, err := c.Peer.links.LinkByName(c.PeerName)
	if err == nil {
		err = c.Peer.links.LinkDel(frontend)
	}
	if err != nil {
		return fmt.Errorf("%s: remove %s: %w", c.Peer.Name, c.PeerName, err)
	}
	return nil
}

// ForgetCard removes the card's nodes, which stay until the hotplug script has run.
func (v *NetVM) ForgetCard(c Card) { v.XenStore.Delete(c.Nodes()) }

// Hotplug runs the hotplug script as Xen does, and returns what it printed.
func (v *NetVM) Hotplug(ctx context.Context, command string, c Card) (string, error) {
	if v.options.VifRoute == "" && v.Machine == nil {
		return "", fmt.Errorf("%s: no vif-route-netvm was given to the lab", v.Name)
	}
	return v.RunCommand(v.HotplugCommand(ctx, command, c))
}

// HotplugCommand prepares the hotplug script with the environment that Xen gives it: in a container the one that is
// installed there.
func (v *NetVM) HotplugCommand(ctx context.Context, command string, c Card) *exec.Cmd {
	var cmd *exec.Cmd
	if v.Machine != nil {
		cmd = v.Machine.Command(ctx, c.script(), command, "type_if=vif")
	} else {
		cmd = v.Command(ctx, v.options.VifRoute, command, "type_if=vif")
		cmd.Dir = "/"
		cmd.Env = append(cmd.Env, "NETVMD_CONFIG="+v.NetvmdConfig())
	}
	cmd.Env = append(cmd.Env, "vif="+c.Name(), "XENBUS_PATH="+c.Nodes(), "XENBUS_BASE_PATH=backend", "XENBUS_TYPE=vif",
		"script="+c.script(), "netdev=")
	return cmd
}
