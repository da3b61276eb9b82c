package main

import (
	"context"
	"net/netip"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/gossip"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/internal/measurement"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Each of these scripts has a controller of its own, which was started with the
// measurement "fixed", and the agents fra-1, fra-2 and nyc-1, which do nothing.
func TestMeasurementScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/measurements",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "eventually": eventually},
		Setup: func(e *testscript.Env) error {
			dir := t.TempDir()
			err := startFleet(t, e, dir)
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("PROBECTL_CONTEXT", filepath.Join(dir, "operator.yaml"))
			return err
		},
	})
}

func startFleet(t *testing.T, e *testscript.Env, dir string) error {
	loopback := netip.MustParseAddr("127.0.0.1")
	fixed, err := measurement.Read([]byte("measurements:\n- {name: fixed, sources: dc=fra, targets: {targets: [\"db.fra:5432\"]}}\n"))
	if err != nil {
		return err
	}
	c, err := controller.New(controller.Config{
		Name: "controller", DataDir: dir, Listen: "127.0.0.1:0", Advertise: loopback,
		Gossip: gossip.Config{Listen: netip.AddrPortFrom(loopback, 0)}, Measurements: fixed,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	e.Defer(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("controller: %v", err)
		}
	})
	saved, err := contexts.Read(filepath.Join(dir, "operator.yaml"))
	if err != nil {
		return err
	}
	admin, err := saved.Credentials()
	if err != nil {
		return err
	}
	for i, name := range []string{"fra-1", "fra-2", "nyc-1"} {
		conn := apitest.DialAs(t, c.Addr().String(), apitest.Enrol(t, c.Addr().String(), admin, name))
		apitest.Join(t, conn, &synmeshv1.Hello{Name: name, Labels: map[string]string{"dc": name[:3]}, Epoch: 1, Version: "v1",
			Responder: netip.AddrPortFrom(loopback, uint16(7401+i)).String(), Stamping: "quiet"})
	}
	return nil
}

// eventually PATTERN COMMAND... runs a command until the pattern matches what it prints.
func eventually(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		switch {
		case err == nil && pattern.MatchString(out):
			return
		case time.Now().After(deadline):
			ts.Fatalf("no match for %s: %v, %s", args[0], err, out)
		}
	}
}
