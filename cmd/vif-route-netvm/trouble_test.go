package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"netvmd/internal/lab"
)

// trouble is something around the program that fails.
type trouble struct {
	words string
	cause func(s *scene, cmd *exec.Cmd)
	// mute is when the toolstack cannot be told.
	mute bool
}

// mountReadOnly makes a folder of the netvm read-only until the test ends.
func (s *scene) mountReadOnly(folder string) {
	s.t.Helper()
	s.netvm("mount --bind " + folder + " " + folder + "; mount -o remount,ro,bind " + folder)
	s.t.Cleanup(func() { s.netvm("umount " + folder) })
}

// under has a prepared command run by another program.
func under(cmd *exec.Cmd, runner ...string) {
	path, err := exec.LookPath(runner[0])
	if err != nil {
		cmd.Err = err
		return
	}
	cmd.Path, cmd.Args = path, append(runner, cmd.Args...)
}

func (s *scene) runtimeDir() string {
	return filepath.Join(filepath.Dir(s.NetVM.NetvmdConfig()), "run")
}

var troubles = map[string]trouble{
	"XenStore is silent": {words: "no answer", mute: true, cause: func(s *scene, cmd *exec.Cmd) {
		end := make(chan struct{})
		socket := filepath.Join(lab.Root, "silent")
		server, err := lab.ListenUnix(socket, func(net.Conn) { <-end })
		s.must(err)
		s.t.Cleanup(func() { close(end); s.must(server.Close()) })
		cmd.Env = append(cmd.Env, s.configure(s.NetVM.XenStoreSocket(), socket))
	}},
	"XenStore is not there": {words: "/nowhere", mute: true, cause: func(s *scene, cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, s.configure(s.NetVM.XenStoreSocket(), "/nowhere"))
	}},
	"the configuration is broken": {words: "netvmd.toml:", mute: true, cause: func(s *scene, cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, s.configure("[vif]", "[vif"))
	}},
	"the configuration has a key that does not exist": {words: "unknown key vif.gatway", mute: true, cause: func(s *scene, cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, s.configure("gateway =", "gatway ="))
	}},
	"the configuration has no gateway": {words: "set vif.gateway in netvmd.toml", cause: func(s *scene, cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, s.configure(`"10.137.0.6"`, `""`))
	}},
	"the program may not change the network": {words: "not permitted", cause: func(_ *scene, cmd *exec.Cmd) {
		under(cmd, "setpriv", "--bounding-set=-net_admin")
	}},
	"the runtime folder is read-only": {words: "read-only file system", cause: func(s *scene, _ *exec.Cmd) {
		s.mountReadOnly(s.runtimeDir())
	}},
	"the folder of records is read-only": {words: "record of vif1.0", cause: func(s *scene, _ *exec.Cmd) {
		s.mountReadOnly(s.runtimeDir() + "/vifs")
	}},
	"sysctls are read-only": {words: "read-only file system", cause: func(s *scene, _ *exec.Cmd) { s.mountReadOnly("/proc/sys") }},
}

func TestATroubleIsOneLineAndNothingIsLeft(t *testing.T) {
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			s := open(t, lab.Options{})
			s.attach(s.Personal)
			s.must(s.NetVM.AddCard(s.Work.Card))
			before := s.dump()
			cmd := s.NetVM.HotplugCommand(s.ctx, "online", s.Work.Card)
			trouble.cause(s, cmd)
			code, said := s.try(cmd)
			s.mustBeOneLine(code, said, trouble.words)
			status, failure := s.status(s.Work.Card)
			if told := status == "error" && strings.Contains(failure, trouble.words); !trouble.mute && !told {
				t.Errorf("hotplug-status %q, hotplug-error %q; want the same words", status, failure)
			}
			same(t, "afterwards", withoutSettings(s.dump()), withoutSettings(before))
		})
	}
}

func TestABrokenConfigurationIsToldToTheToolstack(t *testing.T) {
	s := open(t, lab.Options{})
	s.must(s.NetVM.AddCard(s.Work.Card))
	// Where XenStore is, only the configuration could tell: it is looked for in the usual places.
	s.netvm("mkdir -p /run/xenstored; ln -sf " + s.NetVM.XenStoreSocket() + " /run/xenstored/socket")
	t.Cleanup(func() { s.netvm("rm -r /run/xenstored") })
	s.mustRefuse(s.Work.Card, "netvmd.toml:", s.configure("[vif]", "[vif"))
}
