// Package record shows what an engine sends and what comes back, packet by
// packet: to a function, to a pcapng file, or to both.
//
// New opens the Recorder, Run receives until its context ends, and Catch takes
// in what has come so far; call it while the engine still holds its ports, as
// from the function that its results are handed to, or the last packets cannot
// be told from those of other programs any more.
//
// Only packets between a port that the engine holds and an address that it
// probes are kept, and ICMP errors about such. The rest of what the host says
// is not looked at any further.
package record

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/pcap"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// SnapLen is how much of each packet is kept, in bytes.
const SnapLen = 256

// Config says what to record. Ports, Holds and Remotes have to be given.
type Config struct {
	// Ports are the source ports that the engine may take.
	Ports rawsock.PortRange
	// Holds tells whether the engine has a source port now, as Engine.Holds does.
	Holds func(port uint16) bool
	// Remotes are what is probed, without zones.
	Remotes []netip.AddrPort
	// File gets the packets, unless it is nil. The Recorder does not close it.
	File *pcap.Writer
	// Each gets the packets, unless it is nil, one at a time.
	Each func(*Packet)
}

// Packet is one that was recorded. It is valid during the call that hands it over.
type Packet struct {
	Time time.Time
	// Outgoing says that this host sent it.
	Outgoing bool
	// Device is the interface where it was seen.
	Device string
	packet.Packet
}

// Counts says how much was recorded.
type Counts struct {
	Packets uint64
	// Drops are packets that there was no room for; they may have been ours or not.
	Drops uint64
}

// Recorder records the packets of one engine.
type Recorder struct {
	cfg     Config
	remotes map[netip.AddrPort]bool
	watch   *rawsock.Watch
	opened  int64 // what was before is not the engine's

	mu     sync.Mutex // guards the rest
	copies copies
	counts Counts
	failed error // of writing
}

// New opens the Recorder, in the network namespace of the calling thread. It
// fails with rawsock.ErrPermission where packet sockets are not allowed. Call
// Run to have it receive, or Close if it is not going to run.
func New(cfg Config) (*Recorder, error) {
	r := &Recorder{cfg: cfg, remotes: make(map[netip.AddrPort]bool), opened: time.Now().UnixNano()}
	for _, a := range cfg.Remotes {
		r.remotes[a] = true
	}
	var err error
	if r.watch, err = rawsock.OpenWatch(cfg.Ports); err != nil {
		return nil, err
	}
	return r, nil
}

// Run receives until ctx ends, and closes the Recorder. It returns nil, or why it could
// not receive or write any more.
func (r *Recorder) Run(ctx context.Context) error {
	closed := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		r.watch.Close()
		close(closed)
	})
	err := r.receive()
	if unhook() {
		return errors.Join(err, r.watch.Close())
	}
	if <-closed; errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// Close gives the socket back of a Recorder that does not run.
func (r *Recorder) Close() error { return r.watch.Close() }

func (r *Recorder) receive() error {
	for {
		if err := r.watch.Wait(); err != nil {
			return err
		}
		if err := r.Catch(); err != nil {
			return err
		}
	}
}

// Catch takes in the packets that the kernel had before the call. It is safe
// for concurrent use, but not from Each.
func (r *Recorder) Catch() error {
	err := r.watch.Take(r.handle)
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.failed, err)
}

// Counts returns how much was recorded so far.
func (r *Recorder) Counts() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// handle takes in packets; the watch calls it for one batch at a time.
func (r *Recorder) handle(seen []rawsock.Seen, drops uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.Drops = drops
	for i := range seen {
		r.take(&seen[i])
	}
	if r.cfg.File != nil && r.failed == nil {
		r.fail(r.cfg.File.Flush())
	}
}

func (r *Recorder) take(s *rawsock.Seen) {
	if s.Stamp == 0 { // to have it a little late is better than not to have it
		s.Stamp = time.Now().UnixNano()
	}
	if s.Stamp < r.opened {
		return
	}
	p := Packet{Time: time.Unix(0, s.Stamp)}
	if p.Decode(s.Data) != nil {
		return
	}
	var ours bool
	if p.Outgoing, ours = r.direction(&p.Packet); !ours || r.copies.again(s) {
		return
	}
	p.Device = s.Device
	r.counts.Packets++
	if r.cfg.File != nil && r.failed == nil {
		r.fail(r.cfg.File.Write(s.Stamp, s.Device, s.Data))
	}
	if r.cfg.Each != nil {
		r.cfg.Each(&p)
	}
}

func (r *Recorder) fail(err error) {
	if err != nil {
		r.failed = fmt.Errorf("record packets: %w", err)
	}
}

// direction tells whether a packet is the engine's, and which way it goes. The
// addresses tell, not the device: on a loopback both ends are this host, and
// with a port of the range as the target both ports might be ours.
func (r *Recorder) direction(p *packet.Packet) (outgoing, ours bool) {
	switch p.Kind {
	case packet.KindTCP:
		switch {
		case r.remotes[p.TCP.Dst] && r.cfg.Holds(p.TCP.Src.Port()):
			return true, true
		case r.remotes[p.TCP.Src] && r.cfg.Holds(p.TCP.Dst.Port()):
			return false, true
		}
	case packet.KindICMP:
		q := &p.ICMP.Quoted
		switch {
		case r.remotes[q.Dst] && r.cfg.Holds(q.Src.Port()):
			return false, true // about what we sent
		case r.remotes[q.Src] && r.cfg.Holds(q.Dst.Port()):
			return true, true // about what came
		}
	}
	return false, false
}
