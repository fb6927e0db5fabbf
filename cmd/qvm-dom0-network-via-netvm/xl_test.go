package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"netvmd/internal/store/xenstore"
)

// A stand-in for Xen's xl: this test program, when it is called xl. Its domains are in a file, dom0's card is a veth, and
// what the toolstack and the netvm would say of it is written into the XenStore of the test.

// standInDir names its folder.
const standInDir = "NETVMD_TEST_XL"

const (
	domainsFile  = "domains.json"
	callsFile    = "calls"    // a line for each run
	ruinFile     = "ruin"     // what goes wrong: see ruin
	xenstoreFile = "xenstore" // the socket
)

// guest is a domain of the stand-in.
type guest struct {
	ID     int
	Name   string
	UUID   string
	Pauses int    // Xen counts them
	Gone   string // "s" or "d": it does not run any more
}

// ruin is what goes wrong in the stand-in.
type ruin struct {
	Command string // which one: the first word
	Times   int    // in so many runs; 0 = in all
	Fail    string // it complains so and exits 1
	Dies    int    // domain that dies before it
	Starts  string // domain that starts before it
	Hotplug string // what the netvm's hotplug script does: "" = it connects, "never", or an error
	KillAt  string // "before" or "after": the caller is killed
	Slow    bool   // see awaitGo
}

// runStandIn is main of the stand-in.
func runStandIn(args []string) int {
	if err := standIn(os.Getenv(standInDir), args); err != nil {
		fmt.Fprintln(os.Stderr, "xl stand-in:", err)
		return 1
	}
	return 0
}

func standIn(dir string, args []string) error {
	unlock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { unlock() }()
	calls, err := os.OpenFile(filepath.Join(dir, callsFile), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(calls, strings.Join(args, " ")); err != nil {
		return err
	}
	r, err := takeRuin(dir, args[0])
	if err != nil {
		return err
	}
	if r.KillAt == "before" {
		_ = unix.Kill(os.Getppid(), unix.SIGKILL)
	}
	if r.Slow { // others go on meanwhile
		unlock()
		if err := awaitGo(dir); err != nil {
			return err
		}
		if unlock, err = lockDir(dir); err != nil {
			return err
		}
	}
	guests, err := readGuests(dir)
	if err != nil {
		return err
	}
	guests = r.befall(guests)
	if r.Fail != "" {
		return errors.Join(writeGuests(dir, guests), errors.New(r.Fail))
	}
	if guests, err = act(dir, guests, r, args); err != nil {
		return errors.Join(writeGuests(dir, guests), err)
	}
	if err := writeGuests(dir, guests); err != nil {
		return err
	}
	if r.KillAt == "after" {
		_ = unix.Kill(os.Getppid(), unix.SIGKILL)
	}
	return nil
}

// lockDir keeps other runs out.
func lockDir(dir string) (unlock func(), err error) {
	lock, err := os.OpenFile(dir+"/lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return func() {}, err
	}
	return func() { _ = lock.Close() }, unix.Flock(int(lock.Fd()), unix.LOCK_EX)
}

// The FIFOs of a slow run: it says that it has begun, and waits until it may go on.
const begunFile, goFile = "begun", "go"

func awaitGo(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, begunFile), []byte("begun"), 0); err != nil {
		return err
	}
	_, err := os.ReadFile(filepath.Join(dir, goFile))
	return err
}

func (r ruin) befall(guests []guest) []guest {
	for i := range guests {
		if guests[i].ID == r.Dies && r.Dies > 0 {
			guests[i].Gone = "d"
		}
	}
	if r.Starts != "" {
		id := guests[len(guests)-1].ID + 1
		guests = append(guests, guest{ID: id, Name: r.Starts, UUID: uuidOf(id)})
	}
	return guests
}

func act(dir string, guests []guest, r ruin, args []string) ([]guest, error) {
	switch args[0] {
	case "list":
		printGuests(guests)
		return guests, nil
	case "pause", "unpause":
		return guests, pauseGuest(guests, args[0], args[1])
	case "network-attach":
		return guests, plug(dir, guests, r, args[1:])
	case "network-detach":
		return guests, unplug(dir, args[2])
	}
	return guests, fmt.Errorf("unknown command %q", args)
}

// printGuests prints as xl_list.c does.
func printGuests(guests []guest) {
	fmt.Print("Name                                        ID   Mem VCPUs\tState\tTime(s)   UUID                            Reason-Code\tSecurity Label\n")
	for i, g := range guests {
		state := []byte("-b----")
		if i == 0 {
			state = []byte("r-----")
		}
		if g.Pauses > 0 {
			state[1], state[2] = '-', 'p'
		}
		switch g.Gone {
		case "s":
			state[3] = 's'
		case "d":
			state[5] = 'd'
		}
		fmt.Printf("%-40s %5d %5d %5d     %s  %8.1f %s %8s %16s\n", g.Name, g.ID, 4096, 2, state, 12.5, g.UUID, "-", "-")
	}
}

func pauseGuest(guests []guest, command, which string) error {
	id, err := strconv.Atoi(which)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(guests, func(g guest) bool { return g.ID == id && g.Gone != "d" })
	switch {
	case i < 0:
		return fmt.Errorf("%s is an invalid domain identifier (rc=-6)", which)
	case command == "pause":
		guests[i].Pauses++
	case guests[i].Pauses == 0:
		return fmt.Errorf("libxl: error: Domain %s:Failed to unpause domain: Invalid argument", which)
	default:
		guests[i].Pauses--
	}
	return nil
}

// plug gives dom0 a card.
func plug(dir string, guests []guest, r ruin, words []string) error {
	said := map[string]string{}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		said[key] = value
	}
	i := slices.IndexFunc(guests, func(g guest) bool { return g.Name == said["backend"] })
	if i < 0 || words[0] != "0" || said["script"] != "vif-route-netvm" || said["ip"] == "" {
		return fmt.Errorf("network-attach %q", words)
	}
	mac, err := net.ParseMAC(said["mac"])
	if err != nil {
		return err
	}
	backend := fmt.Sprintf("/local/domain/%d/backend/vif/0/0", guests[i].ID)
	nodes := [][2]string{{"device/vif/0/mac", said["mac"]}, {"device/vif/0/backend", backend}, {backend + "/ip", said["ip"]}}
	switch r.Hotplug {
	case "":
		nodes = append(nodes, [2]string{backend + "/hotplug-status", "connected"})
	case "never":
	default:
		nodes = append(nodes, [2]string{backend + "/hotplug-error", r.Hotplug}, [2]string{backend + "/hotplug-status", "error"})
	}
	if err := inStore(dir, func(ctx context.Context, c *xenstore.Client) error {
		for _, n := range nodes {
			if err := c.Write(ctx, n[0], n[1]); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "eth0", HardwareAddr: mac}, PeerName: "vif0.0",
		PeerHardwareAddr: net.HardwareAddr{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff},
	})
}

func unplug(dir, mac string) error {
	if err := inStore(dir, func(ctx context.Context, c *xenstore.Client) error {
		backend, err := c.Read(ctx, "device/vif/0/backend")
		if err != nil {
			return fmt.Errorf("unknown device %s: %w", mac, err)
		}
		return errors.Join(c.Remove(ctx, backend), c.Remove(ctx, "device/vif/0"))
	}); err != nil {
		return err
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

func inStore(dir string, do func(context.Context, *xenstore.Client) error) error {
	ctx := context.Background()
	c, err := xenstore.Open(ctx, filepath.Join(dir, xenstoreFile))
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, c), c.Close())
}

// takeRuin gives what goes wrong in this run.
func takeRuin(dir, command string) (ruin, error) {
	path := filepath.Join(dir, ruinFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ruin{}, nil
	}
	var r ruin
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil || r.Command != command {
		return ruin{}, err
	}
	if r.Times == 1 {
		return r, os.Remove(path)
	}
	later := r
	later.Times--
	if r.Times > 0 {
		err = writeJSON(path, later)
	}
	return r, err
}

func readGuests(dir string) (guests []guest, err error) {
	text, err := os.ReadFile(filepath.Join(dir, domainsFile))
	if err != nil {
		return nil, err
	}
	return guests, json.Unmarshal(text, &guests)
}

func writeGuests(dir string, guests []guest) error {
	return writeJSON(filepath.Join(dir, domainsFile), guests)
}

func writeJSON(path string, what any) error {
	text, err := json.MarshalIndent(what, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// uuidOf is the UUID of a domain that has started with this domid.
func uuidOf(id int) string { return fmt.Sprintf("5ba5c0de-0000-4000-8000-%012x", id) }
