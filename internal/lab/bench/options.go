//go:build linux

package main

import (
	"fmt"
	"math/bits"
	"time"
)

// options say how much is measured. A section whose number is zero is left out.
type options struct {
	probes     int           // accuracy: probes of ours, 2 ms apart
	peerProbes int           // accuracy: probes of each peer, 10 ms apart
	targets    int           // rate: targets, each probed once
	rounds     int           // rate: how often; the best one counts
	slice      time.Duration // bystander: how long it sends at a time
	slices     int           // bystander: how often in each company
	steady     int           // steady: targets
	seconds    int           // steady: rounds, a second apart
	ingest     int           // ingest: agents
	ingestFor  time.Duration // ingest: how long they report
	ingestRate float64       // ingest: results a second, of all agents; 0: as fast as possible
	stored     int           // ingest: reports of each agent, for Synmesh and others
	latencyFor time.Duration // latency: how long it is measured at a time
	patience   time.Duration // how long to wait in all for the machine to be quiet
	profiles   string        // the folder for profiles of the engine, if they are wanted
}

var (
	full = options{
		probes: 2000, peerProbes: 300, targets: maxTargets, rounds: 5,
		slice: 300 * time.Millisecond, slices: 30, steady: 1000, seconds: 20,
		ingest: 500, ingestFor: time.Minute, stored: 20, latencyFor: 30 * time.Second, patience: time.Minute,
	}
	smoke = options{
		probes: 300, peerProbes: 50, targets: 1 << 12, rounds: 1,
		slice: 100 * time.Millisecond, slices: 3, steady: 100, seconds: 2,
		ingest: 10, ingestFor: 2 * time.Second, stored: 3, latencyFor: 3 * time.Second,
	}
)

// maxTargets is how many addresses the target host has.
const maxTargets = 1 << 18

func (o options) check() error {
	if o.targets != 0 && (o.targets < 256 || o.targets > maxTargets || bits.OnesCount(uint(o.targets)) != 1) {
		return fmt.Errorf("%d targets; a power of two from 256 to %d is wanted", o.targets, maxTargets)
	}
	return nil
}

// keep leaves out all sections but these.
func (o *options) keep(sections []string) error {
	wanted := make(map[string]bool)
	for _, s := range sections {
		switch s {
		case "accuracy", "rate", "bystander", "steady", "ingest", "latency":
			wanted[s] = true
		default:
			return fmt.Errorf("there is no section %q; the sections are accuracy, rate, bystander, steady, ingest and latency", s)
		}
	}
	if !wanted["accuracy"] {
		o.probes = 0
	}
	if !wanted["rate"] {
		o.rounds = 0
	}
	if !wanted["bystander"] {
		o.slice = 0
	}
	if !wanted["steady"] {
		o.seconds = 0
	}
	if !wanted["ingest"] {
		o.ingest = 0
	}
	if !wanted["latency"] {
		o.latencyFor = 0
	}
	return nil
}
