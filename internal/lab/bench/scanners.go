//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// scanner is a peer that probes many targets and times none.
type scanner struct {
	program string
	args    func(n *network, targets string) []string
}

// Both come with settings that leave private addresses out; /dev/null stands
// in for these. No rate is theirs to keep, and after the last SYN they wait for answers for a second.
var scanners = []scanner{
	{"masscan", func(n *network, targets string) []string {
		return []string{
			targets, "-p", strconv.Itoa(port), "--rate", "100000000", "--interface", n.from.Interface(),
			"--source-ip", n.from.Addr4().String(), "--router-mac", n.mac.String(), "--wait", "1", "-oL", "-",
		}
	}},
	{"zmap", func(n *network, targets string) []string {
		return []string{
			"-p", strconv.Itoa(port), "-i", n.from.Interface(), "-S", n.from.Addr4().String(), "-G", n.mac.String(),
			"-r", "0", "-c", "1", "-C", "/dev/null", "-b", "/dev/null", "-q", targets,
		}
	}},
}

func (s scanner) sweep(ctx context.Context, n *network, targets int) (int, string, *os.ProcessState, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	all := sweepOf(targets)
	quiet, err := nudge(n)
	if err != nil {
		return 0, "", nil, err
	}
	defer quiet()
	cmd := exec.CommandContext(ctx, s.program, s.args(n, all.String())...)
	out, err := output(n.from, cmd)
	return len(addressesIn(out, all)), "not told", cmd.ProcessState, err
}

// sweepOf is the range of the first so many addresses, a power of two.
func sweepOf(targets int) netip.Prefix {
	return netip.PrefixFrom(firstTarget, 33-bits.Len(uint(targets)))
}

// nudge sends a datagram every tenth of a second from the target host, until
// it is told to be quiet: masscan ends only when a packet comes after its time is up.
func nudge(n *network) (quiet func(), err error) {
	var c net.Conn
	err = n.to.Do(func() (err error) {
		c, err = net.Dial("udp4", netip.AddrPortFrom(n.from.Addr4(), sink).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer c.Close()
		every := time.NewTicker(100 * time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-every.C:
				_, _ = c.Write([]byte{0}) // is refused, since nobody listens there
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }, nil
}

// addressesIn returns the addresses that a scanner printed, each once.
func addressesIn(out []byte, within netip.Prefix) map[netip.Addr]bool {
	found := make(map[netip.Addr]bool)
	for s := bufio.NewScanner(bytes.NewReader(out)); s.Scan(); {
		for _, word := range strings.Fields(s.Text()) {
			if a, err := netip.ParseAddr(word); err == nil && within.Contains(a) {
				found[a] = true
			}
		}
	}
	return found
}
