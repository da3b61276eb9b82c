//go:build linux

// Package swarm_test puts many agents before one controller, over mTLS, and tells
// what that costs and how long it takes: to gather, to begin a run together, to stop
// it, and to come back when the controller was killed. The agents are real but for
// their probers, which make results up; thus they need no network of their own.
// All of them are one process, and the controller is another: this test binary, executed again.
//
// TestASwarm is short. SYNMESH_TORTURE=1 has it do with a thousand agents, and -v tells the figures.
package swarm_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/synmesh/synmesh/internal/lab"
)

// asProgram names the program that the test binary is to be.
const asProgram = "SYNMESH_SWARM_PROGRAM"

func TestMain(m *testing.M) {
	programs := map[string]func(context.Context, []string) error{"agents": runAgents, "enrol": runEnrol, "controller": runController}
	program := programs[os.Getenv(asProgram)]
	if program == nil {
		if err := lab.Enter(); err != nil { // for a loopback interface that is up
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := program(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, os.Getenv(asProgram)+":", err)
		os.Exit(1)
	}
}
