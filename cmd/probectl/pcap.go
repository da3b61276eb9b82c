package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/probe/pcap"
	"github.com/synmesh/synmesh/probe/record"
)

// recording sees the packets of one engine while it carries out one Spec.
type recording struct {
	path string // of the pcapng file; "" for none
	file *os.File
	pcap *pcap.Writer
	rec  *record.Recorder
	left int // results to come, if they have an end
}

// lastPackets is how long those may be under way through this host that the
// last result leaves behind: the kernel's own RST, above all.
const lastPackets = 20 * time.Millisecond

// openRecording begins to record what e does for the Spec, whose targets have to
// be resolved: to the file of that path, unless it is "", and to each, unless it is nil.
func openRecording(e *engine.Engine, spec *probe.Spec, remotes []netip.AddrPort, path string, each func(*record.Packet)) (*recording, error) {
	r := &recording{path: path, left: spec.Probes()}
	if path != "" {
		var err error
		if r.file, err = os.Create(path); err != nil {
			return nil, err
		}
		comment := fmt.Sprintf("TCP handshakes, mode %v: only packets of probectl's own source ports, cut at %d bytes", spec.Mode, record.SnapLen)
		r.pcap = pcap.NewWriter(r.file, "probectl "+version, comment, record.SnapLen)
	}
	var err error
	r.rec, err = record.New(record.Config{Ports: engine.DefaultPorts, Holds: e.Holds, Remotes: remotes, File: r.pcap, Each: each})
	if err != nil {
		return nil, errors.Join(err, r.closeFile(0))
	}
	return r, nil
}

// run receives until ctx ends. A nil recording has nothing to do.
func (r *recording) run(ctx context.Context) error {
	if r == nil {
		return nil
	}
	return r.rec.Run(ctx)
}

// begin is called just before the engine takes its ports: what there is so far
// is of those who had them before.
func (r *recording) begin() {
	if r != nil {
		_ = r.rec.Catch() // see result
	}
}

// result is called with every result, while the engine holds its ports.
func (r *recording) result() {
	if r == nil {
		return
	}
	if r.left--; r.left == 0 {
		time.Sleep(lastPackets)
	}
	// A recorder that has failed says so itself, where it runs.
	_ = r.rec.Catch()
}

// close completes the file and tells what is in it.
func (r *recording) close(a *app) error {
	if r == nil {
		return nil
	}
	c := r.rec.Counts()
	if r.path != "" {
		fmt.Fprintf(a.err, "%s: %d packets\n", r.path, c.Packets)
	}
	if c.Drops > 0 {
		fmt.Fprintf(a.err, "warning: this host was too busy to record %d packets, which may have been ours\n", c.Drops)
	}
	return r.closeFile(c.Drops)
}

func (r *recording) closeFile(drops uint64) error {
	if r.file == nil {
		return nil
	}
	if err := errors.Join(r.pcap.Close(drops), r.file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", r.path, err)
	}
	return nil
}

// lookUp finds the address of a target's host, as the engine does.
func lookUp(ctx context.Context, host string, family probe.Family) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), nil
	}
	network := map[probe.Family]string{probe.AnyFamily: "ip", probe.IPv4: "ip4", probe.IPv6: "ip6"}[family]
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, network, host)
	if err != nil {
		return netip.Addr{}, err
	}
	if len(addrs) == 0 {
		return netip.Addr{}, fmt.Errorf("%s has no IPv%d address", host, family)
	}
	return addrs[0].Unmap(), nil
}

// resolveTargets puts addresses in the place of names, so that what is probed
// is what is recorded. A name without an address stays; the engine says why.
func resolveTargets(ctx context.Context, spec *probe.Spec) (remotes []netip.AddrPort) {
	known := make(map[string]netip.Addr)
	for i := range spec.Targets {
		t := &spec.Targets[i]
		a, seen := known[t.Host]
		if !seen {
			// Without an address there is nothing to record.
			a, _ = lookUp(ctx, t.Host, spec.Family)
			known[t.Host] = a
		}
		if a.IsValid() {
			t.Host = a.String()
			remotes = append(remotes, netip.AddrPortFrom(a.WithZone(""), t.Port))
		}
	}
	return remotes
}
