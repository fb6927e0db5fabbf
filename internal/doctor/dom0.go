package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"netvmd/internal/dom0"
	"netvmd/internal/vif"
)

// iommu is what Xen can do for domains with devices.
type iommu struct{ capabilities []string }

// virtCaps is the line of `xl info` that tells it (xl(1)).
const virtCaps = "virt_caps"

func readIOMMU(ctx context.Context, _ *machine) (iommu, error) {
	out, err := exec.CommandContext(ctx, "xl", "info").Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return iommu{}, fmt.Errorf("xl info: %w: %s", err, bytes.TrimSpace(exit.Stderr))
	case err != nil:
		return iommu{}, fmt.Errorf("xl info: %w", err)
	}
	return parseXlInfo(string(out))
}

func parseXlInfo(text string) (iommu, error) {
	for _, line := range strings.Split(text, "\n") {
		key, value, found := strings.Cut(line, ":")
		if found && strings.TrimSpace(key) == virtCaps {
			return iommu{strings.Fields(value)}, nil
		}
	}
	return iommu{}, fmt.Errorf("xl info says no %s", virtCaps)
}

// isolated tells whether devices reach the memory of their own domain alone. Xen calls that hvm_directio and, for paravirtual
// domains, pv_directio.
func (i iommu) isolated() bool {
	return slices.Contains(i.capabilities, "hvm_directio") || slices.Contains(i.capabilities, "pv_directio")
}

func (i iommu) judge() finding {
	if !i.isolated() {
		return fail("Xen uses none (virt_caps: "+strings.Join(i.capabilities, " ")+"): a hacked network card reads and writes all memory, dom0's too",
			"Switch VT-d or AMD-Vi on in the firmware's setup, and boot Xen without iommu=off")
	}
	return fine("Xen uses it: a network card reaches its own domain's memory alone")
}

// pciCard is a network card that dom0's kernel sees.
type pciCard struct{ address, driver string } // the driver is "" for none

// pciCards are all of them.
type pciCards []pciCard

const (
	pciDevices = "/sys/bus/pci/devices"
	// networkClass begins the class of network controllers (PCI Code and ID Assignment Specification, base class 02h).
	networkClass = "0x02"
)

// guestDrivers hold a device for a domain (Linux, drivers/xen/xen-pciback).
var guestDrivers = []string{"pciback", "xen-pciback"}

func readPCICards(_ context.Context, m *machine) (pciCards, error) {
	entries, err := os.ReadDir(m.path(pciDevices))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var cards pciCards
	for _, e := range entries {
		class, err := m.read(filepath.Join(pciDevices, e.Name(), "class"))
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(class, networkClass) {
			continue
		}
		driver, err := os.Readlink(m.path(filepath.Join(pciDevices, e.Name(), "driver")))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if driver != "" {
			driver = filepath.Base(driver)
		}
		cards = append(cards, pciCard{e.Name(), driver})
	}
	return cards, nil
}

func (p pciCards) judge() finding {
	var own, idle, given []string
	for _, c := range p {
		switch {
		case c.driver == "":
			idle = append(idle, c.address)
		case slices.Contains(guestDrivers, c.driver):
			given = append(given, c.address)
		default:
			own = append(own, c.address+" ("+c.driver+")")
		}
	}
	switch {
	case len(own) > 0:
		return fail("dom0's own drivers have "+strings.Join(own, ", ")+": whoever hacks one of them has dom0",
			"Give them to the netvm: qvm-pci attach --persistent, or pci = in its configuration")
	case len(idle) > 0:
		return warn("no domain has "+strings.Join(idle, ", "), "Give them to the netvm, or leave them: dom0 does not use them")
	case len(given) > 0:
		return fine("domains have all of them: %s", strings.Join(given, ", "))
	}
	return fine("dom0 sees none")
}

// interfaces are dom0's, but for the loopback.
type interfaces struct {
	others  []string
	vifs    []string // dom0 serves domains with these
	visitor string   // that of qvm-dom0-network-via-netvm
}

const netDevices = "/sys/class/net"

func readInterfaces(_ context.Context, m *machine) (out interfaces, err error) {
	entries, err := os.ReadDir(m.path(netDevices))
	if err != nil {
		return out, err
	}
	for _, e := range entries {
		mac, err := m.read(filepath.Join(netDevices, e.Name(), "address"))
		if err != nil {
			return out, err
		}
		_, _, notVif := vif.ParseName(e.Name())
		switch {
		case e.Name() == "lo":
		case notVif == nil:
			out.vifs = append(out.vifs, e.Name())
		case mac == dom0.MAC:
			out.visitor = e.Name()
		default:
			out.others = append(out.others, e.Name())
		}
	}
	return out, nil
}

func (i interfaces) judge() finding {
	switch {
	case len(i.others) > 0:
		return fail("dom0 has "+strings.Join(i.others, ", ")+", and is to have none",
			"Give its network card to the netvm (qvm-pci attach --persistent, or pci = in its configuration), and boot again")
	case len(i.vifs) > 0:
		return warn("dom0 itself serves domains: "+strings.Join(i.vifs, ", "), "Name backend= and the netvm in their configurations")
	case i.visitor != "":
		return fine("%s alone, of qvm-dom0-network-via-netvm", i.visitor)
	}
	return fine("it has none")
}

// visit is what qvm-dom0-network-via-netvm has done.
type visit struct {
	dom0.Situation
	err error // its journal makes no sense
}

func readVisit(_ context.Context, m *machine) (visit, error) {
	s, err := dom0.Inspect(m.path(m.conf.StateDir), strings.TrimSuffix(m.root, "/"))
	if errors.Is(err, fs.ErrPermission) {
		return visit{}, err
	}
	return visit{s, err}, nil
}

func (v visit) judge() finding {
	const down = "Run: qvm-dom0-network-via-netvm down"
	switch {
	case v.err != nil:
		return fail(v.err.Error(), down+", when that is mended")
	case v.Stale:
		return warn("a journal of before the last boot is left: resolv.conf is not yet what it was", down)
	case v.Up && v.Netvm == "":
		return warn(fmt.Sprintf("qvm-dom0-network-via-netvm was not ended, and %d domains stand paused", v.Paused), down)
	case v.Up:
		return warn(fmt.Sprintf("dom0 is on the network through %s, and %d domains stand paused", v.Netvm, v.Paused), down)
	}
	return fine("it is off it")
}
