//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
)

func TestAListenerShowsWhatComes(t *testing.T) {
	from, to, _ := linked(t, lab.Impairment{})
	c := command(t, "probectl", "listen", "7001")
	stdout, err := c.StdoutPipe()
	must(t, err)
	c.Stderr = nil
	stderr, err := c.StderrPipe()
	must(t, err)
	must(t, to.Start(c))
	kill := time.AfterFunc(time.Minute, func() { _ = c.Process.Kill() })
	defer kill.Stop()
	if line, err := bufio.NewReader(stderr).ReadString('\n'); err != nil || !strings.HasPrefix(line, "listening on ") {
		t.Fatalf("it says %q (%v)", line, err)
	}
	target := netip.AddrPortFrom(to.Addr4(), 7001).String()
	for _, mode := range []string{"full", "half-open"} {
		if _, complaints, code := runOn(t, from, "run", target, "-c", "2", "-i", "10ms", "--mode", mode); code != 0 {
			t.Fatalf("mode %s: exit code %d: %s", mode, code, complaints)
		}
	}
	lines := bufio.NewScanner(stdout)
	read := func(part string) {
		t.Helper()
		if !lines.Scan() || !strings.Contains(lines.Text(), part) {
			t.Fatalf("%q, want one with %q (%v)", lines.Text(), part, lines.Err())
		}
	}
	for _, kind := range []string{"connection", "half-open"} {
		for range 2 {
			read(kind)
			if want := fmt.Sprintf("  %s:610", from.Addr4()); !strings.Contains(lines.Text(), want) || !strings.HasSuffix(lines.Text(), " by the other end") {
				t.Errorf("the line is %q", lines.Text())
			}
		}
	}
	must(t, c.Process.Signal(os.Interrupt))
	read("2 connections, 2 half-open")
	_ = c.Wait() // the exit code tells
	if code := c.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}

func TestHandshakesThatAreNotCompletedAreTold(t *testing.T) {
	var out strings.Builder
	s := &listening{app: &app{out: &out}}
	h := &halfOpens{to: s, port: 7001, under: make(map[netip.AddrPort]*attempt)}
	began := time.Now()
	say := func(outgoing bool, from, to string, flags packet.Flags) {
		h.take(&packet.Segment{Src: netip.MustParseAddrPort(from), Dst: netip.MustParseAddrPort(to), Flags: flags}, outgoing, began)
	}
	const here, done, reset, silent, lost = "10.0.0.1:7001", "10.0.0.2:1", "10.0.0.2:2", "10.0.0.2:3", "10.0.0.2:4"
	for _, remote := range []string{done, reset, silent} {
		say(false, remote, here, packet.SYN)
		say(true, here, remote, packet.SYN|packet.ACK)
	}
	say(false, lost, here, packet.SYN)
	say(false, lost, here, packet.SYN) // sent again
	say(false, done, here, packet.ACK)
	say(false, done, here, packet.RST) // of a connection that was complete
	say(false, reset, here, packet.RST)
	say(true, here, "10.0.0.2:7001", packet.SYN)          // our own connection from the port
	say(true, "10.0.0.1:5", "10.0.0.2:7001", packet.SYN)  // and to another's
	say(false, "10.0.0.2:9", "10.0.0.1:7002", packet.SYN) // another port
	h.expire(began.Add(completeTime - 1))
	if s.halfOpen != 1 {
		t.Errorf("%d half-open before their time, want 1:\n%s", s.halfOpen, &out)
	}
	h.expire(began.Add(completeTime))
	if s.halfOpen != 3 || len(h.under) != 0 {
		t.Errorf("%d half-open and %d under way, want 3 and none:\n%s", s.halfOpen, len(h.under), &out)
	}
	for remote, how := range map[string]string{reset: "reset by the other end", silent: "our SYN,ACK was never answered", lost: "this host did not answer the SYN"} {
		found := false
		for line := range strings.Lines(out.String()) {
			found = found || strings.Contains(line, remote+" ") && strings.Contains(line, how)
		}
		if !found {
			t.Errorf("%s: %s is not told in\n%s", remote, how, &out)
		}
	}
}
