//go:build linux

package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/synmesh/synmesh/internal/lab"
)

// commands lists what the peers were asked to do.
func (p *page) commands(n *network) {
	var lines []string
	list := func(program string, args []string) {
		if _, ok := p.peers.installed[program]; !ok {
			return
		}
		for i, a := range args {
			if strings.Contains(a, " ") {
				args[i] = "'" + a + "'"
			}
		}
		lines = append(lines, "    "+program+" "+strings.Join(args, " "))
	}
	if p.options.probes > 0 {
		for _, t := range timers {
			list(t.program, t.args(strconv.Itoa(t.probes(p.options.peerProbes)), p.timed))
		}
	}
	if p.options.targets > 0 {
		for _, s := range scanners {
			list(s.program, s.args(n, sweepOf(p.options.targets).String()))
		}
	}
	if p.options.ingest > 0 && p.options.stored > 0 {
		list(victoriaProgram, victoriaArgs("FOLDER"))
	}
	if len(lines) > 0 {
		p.section("What the others were asked", fmt.Sprintf("From %s:\n\n%s", address(n.from), strings.Join(lines, "\n")))
	}
}

func address(n *lab.Node) string { return n.Addr4().String() }
