// Probectl is what operators type. See probectl --help.
//
// Results go to standard output and everything else to standard error. The
// exit code is 0 if all is well, 1 if a threshold was broken or no probe was
// answered, 2 if the command was wrong, 3 if the controller cannot be reached
// or does not let us in, 4 if agents that were selected did not report, and
// 130 if the command was interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

var version = "unknown" // set by the linker

// The exit codes.
const (
	exitBroken      = 1
	exitUsage       = 2
	exitController  = 3
	exitAgents      = 4
	exitInterrupted = 130
)

// exit is an error that wants a certain exit code. Without an error of its
// own, everything has been said.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exit) Unwrap() error { return e.err }

func usage(err error) error { return &exit{exitUsage, err} }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := &app{out: os.Stdout, err: os.Stderr, env: os.Getenv}
	err := app.command().ExecuteContext(ctx)
	stop()
	os.Exit(app.report(err))
}

// report says what went wrong, on one line, and returns the exit code.
func (a *app) report(err error) int {
	if err == nil {
		return 0
	}
	var e *exit
	if !errors.As(err, &e) {
		e = &exit{exitBroken, err}
	}
	if e.err != nil {
		fmt.Fprintln(a.err, "probectl:", e.err)
	}
	return e.code
}
