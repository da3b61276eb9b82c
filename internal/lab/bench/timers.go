//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// timer is a peer that times single handshakes.
type timer struct {
	program string
	every   time.Duration // between two probes; no less than 10 ms, and than it is able to
	args    func(count, target string) []string
	parse   func(out []byte) ([]timed, error)
}

var timers = []timer{
	{"hping3", 10 * time.Millisecond, func(count, target string) []string {
		return []string{"-n", "-S", "-p", strconv.Itoa(port), "-c", count, "-i", "u10000", target}
	}, parseHping},
	{"nping", 10 * time.Millisecond, func(count, target string) []string {
		return []string{"--tcp", "-p", strconv.Itoa(port), "-c", count, "--delay", "10ms", target}
	}, parseNping},
	{"scamper", 100 * time.Millisecond, func(count, target string) []string {
		ping := fmt.Sprintf("ping -P tcp-syn -d %d -c %s -i 0.1 %s", port, count, target)
		return []string{"-p", "1000", "-I", ping} // it would share out 20 a second
	}, parseScamper},
}

// probes is how many probes it sends where a quick one would send n.
func (t timer) probes(n int) int {
	if t.every > 10*time.Millisecond {
		return n / 3
	}
	return n
}

func (t timer) time(ctx context.Context, n *network, count int) ([]timed, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(count)*t.every+20*time.Second)
	defer cancel()
	args := t.args(strconv.Itoa(count), n.to.Addr4().String())
	out, err := output(n.from, exec.CommandContext(ctx, t.program, args...))
	if err != nil {
		return nil, err
	}
	return t.parse(out)
}

var (
	hpingLine   = regexp.MustCompile(` seq=(\d+) .*rtt=([\d.]+) ms`)
	scamperLine = regexp.MustCompile(`seq=(\d+) .*time=([\d.]+) ms`)
	npingSent   = regexp.MustCompile(`^SENT \(([\d.]+)s\)`)
	npingGot    = regexp.MustCompile(`^RCVD \(([\d.]+)s\) .* SA .* seq=(\d+) `)
)

func parseHping(out []byte) ([]timed, error)   { return parseTurns(out, hpingLine) }
func parseScamper(out []byte) ([]timed, error) { return parseTurns(out, scamperLine) }

// parseTurns reads lines with a turn, counted from 0, and milliseconds. Turns
// without a line become reports that no capture has.
func parseTurns(out []byte, line *regexp.Regexp) ([]timed, error) {
	var ts []timed
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		m := line.FindSubmatch(s.Bytes())
		if m == nil {
			continue
		}
		turn, err := strconv.Atoi(string(m[1]))
		if err != nil || turn > 1<<16 {
			return nil, fmt.Errorf("turn %q: %w", m[1], err)
		}
		ms, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return nil, err
		}
		for len(ts) <= turn {
			ts = append(ts, timed{Seq: 1})
		}
		ts[turn] = timed{RTT: time.Duration(ms * 1e6)}
	}
	return ts, nil
}

// parseNping takes the time from each answer to the SYN before it.
func parseNping(out []byte) ([]timed, error) {
	var ts []timed
	sent := -1.0
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		if m := npingSent.FindSubmatch(s.Bytes()); m != nil {
			var err error
			if sent, err = strconv.ParseFloat(string(m[1]), 64); err != nil {
				return nil, err
			}
		}
		m := npingGot.FindSubmatch(s.Bytes())
		if m == nil || sent < 0 {
			continue
		}
		got, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, err
		}
		seq, err := strconv.ParseUint(string(m[2]), 10, 32)
		if err != nil {
			return nil, err
		}
		ts = append(ts, timed{RTT: time.Duration((got - sent) * 1e9), Seq: uint32(seq)})
	}
	return ts, nil
}
