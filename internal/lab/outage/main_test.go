//go:build linux

// Package outage_test has a network swallow what a controller and its agents send each
// other, without a word to either, and looks when they notice and how they come back,
// in real time. They are whole programs on hosts of a lab: this test binary, executed again.
//
// What takes minutes is asked for by SYNMESH_TORTURE=1; -v tells the figures.
package outage_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/synmesh/synmesh/agent"
	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/lab"
)

// asProgram names the program that the test binary is to be.
const asProgram = "SYNMESH_OUTAGE_PROGRAM"

func TestMain(m *testing.M) {
	programs := map[string]func(context.Context, []string) error{"agent": runAgent, "enrol": runEnrol, "controller": runController}
	program := programs[os.Getenv(asProgram)]
	if program == nil {
		if err := lab.Enter(); err != nil {
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

// openLog returns a log that others can read while it is written.
func openLog(dir string) (*slog.Logger, *os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return slog.New(slog.NewJSONHandler(f, nil)), f, err
}

// runController is a controller. Arguments: its folder, and the address of its host.
func runController(ctx context.Context, args []string) error {
	log, f, err := openLog(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	cfg := controller.Config{Name: "controller", DataDir: args[0], Advertise: netip.MustParseAddr(args[1]), Logger: log}
	cfg.Gossip.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	c, err := controller.New(cfg)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// runEnrol enrols an agent. Arguments: the folder of its state, the controller, and the token.
func runEnrol(ctx context.Context, args []string) error {
	token, err := identity.ParseToken(args[2])
	if err != nil {
		return err
	}
	_, err = agent.Enrol(ctx, agent.EnrolConfig{StateDir: args[0], Controller: args[1], Token: token})
	return err
}

// runAgent is an agent. Arguments: the folder of its state, and the controller.
func runAgent(ctx context.Context, args []string) error {
	log, f, err := openLog(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	a, err := agent.New(agent.Config{StateDir: args[0], Controllers: []string{args[1]}, Logger: log})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}
