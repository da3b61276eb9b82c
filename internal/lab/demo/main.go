//go:build linux

// Demo builds a network of three data centres inside its own process, runs a
// controller and two agents in each of them there, and has an operator measure.
// At the end it compares what was measured with the delays that it gave the
// network, and exits with 1 if they differ too much.
//
// Everything is in network namespaces of its own, and gone when it ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
)

// within bounds the whole demonstration.
const within = 150 * time.Second

func main() {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(interrupted, within)
	err := demo(ctx, os.Stdout)
	cancel()
	if interrupted.Err() != nil {
		fmt.Fprintln(os.Stderr, "demo: interrupted; nothing of it is left")
		os.Exit(130)
	}
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// demo is the demonstration from beginning to end.
func demo(ctx context.Context, out io.Writer) (err error) {
	n, err := build()
	if err != nil {
		return err
	}
	defer func() {
		if e := n.close(err != nil && !errors.Is(ctx.Err(), context.Canceled)); err == nil {
			err = e
		}
	}()
	fmt.Fprintf(out, "Three data centres, in network namespaces; round trips between them: %s\n", n.told())
	if err := n.startFleet(ctx); err != nil {
		return err
	}
	fmt.Fprint(out, "A controller made a CA, and six agents enrolled with a token each; they found each other by gossip.\n")

	op := operator{network: n, out: out}
	if err := op.say(ctx, "get", "agents"); err != nil {
		return err
	}
	// The mesh measures meanwhile.
	enough := time.Now().Add(meshFor)
	if err := op.say(ctx, "run", "fra-1", "--from", "dc in (nyc,sin)", "-c", "20", "-i", "0.2"); err != nil {
		return err
	}
	if err := op.say(ctx, "run", n.hosts["sin-2"].Addr4().String()+":7401,9", "--from", "fra-1", "-c", "1", "-o", "jsonl"); err != nil {
		return err
	}
	select {
	case <-time.After(time.Until(enough)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := op.say(ctx, "matrix", "mesh", "--by", "dc", "--window", "1m"); err != nil {
		return err
	}
	measured, err := op.roundTrips(ctx)
	if err != nil {
		return err
	}
	return n.judge(out, measured)
}
