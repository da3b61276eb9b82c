package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// halfOpens finds handshakes with a port that are not completed.
type halfOpens struct {
	to   *listening
	port uint16
	on   netip.Addr // the only address that counts, if it is valid

	mu    sync.Mutex // guards the rest
	under map[netip.AddrPort]*attempt
	drops uint64
	extra int // attempts that found no room
}

// attempt is a handshake under way.
type attempt struct {
	began    time.Time
	answered bool // our host has sent a SYN-ACK
}

const (
	maxAttempts  = 4096
	completeTime = 5 * time.Second // for a handshake
)

// run watches until ctx ends, and closes the watch.
func (h *halfOpens) run(ctx context.Context, w *rawsock.Watch) error {
	var sweeping sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	sweeping.Go(func() { h.sweep(running, w) })
	err := h.receive(w)
	ended := ctx.Err() != nil
	stop()
	sweeping.Wait()
	if h.drops > 0 || h.extra > 0 {
		fmt.Fprintf(h.to.app.err, "warning: %d packets were not seen and %d handshakes not followed, as this host was too busy\n", h.drops, h.extra)
	}
	if ended && errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

func (h *halfOpens) receive(w *rawsock.Watch) error {
	for {
		if err := w.Wait(); err != nil {
			return err
		}
		if err := w.Take(h.handle); err != nil {
			return err
		}
	}
}

// sweep looks for attempts that have had their time, and closes the watch in the end.
func (h *halfOpens) sweep(ctx context.Context, w *rawsock.Watch) {
	t := time.NewTicker(completeTime / 10)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			h.expire(time.Now())
		case <-ctx.Done():
			_ = w.Close() // wakes the reader
			return
		}
	}
}

func (h *halfOpens) expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for remote, a := range h.under {
		switch took := now.Sub(a.began); {
		case took < completeTime:
			continue
		case a.answered:
			h.report(remote, a, took, "our SYN,ACK was never answered")
		default:
			h.report(remote, a, took, "this host did not answer the SYN")
		}
	}
}

// report shows an attempt that has failed. The lock is held.
func (h *halfOpens) report(remote netip.AddrPort, a *attempt, took time.Duration, how string) {
	delete(h.under, remote)
	h.to.show(a.began, remote.String(), "half-open", took, how, &h.to.halfOpen)
}

func (h *halfOpens) handle(seen []rawsock.Seen, drops uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drops = drops
	var p packet.Packet
	for i := range seen {
		if p.Decode(seen[i].Data) != nil || p.Kind != packet.KindTCP {
			continue
		}
		h.take(&p.TCP, seen[i].Outgoing, time.Unix(0, seen[i].Stamp))
	}
}

func (h *halfOpens) take(s *packet.Segment, outgoing bool, at time.Time) {
	here, remote := s.Dst, s.Src
	if outgoing {
		here, remote = s.Src, s.Dst
	}
	if here.Port() != h.port || h.on.IsValid() && !h.on.IsUnspecified() && here.Addr() != h.on {
		return
	}
	a := h.under[remote]
	switch flags := s.Flags & (packet.SYN | packet.ACK | packet.RST); {
	case outgoing:
		if a != nil && flags == packet.SYN|packet.ACK {
			a.answered = true
		}
	case flags == packet.SYN && a != nil: // sent again
	case flags == packet.SYN && len(h.under) == maxAttempts:
		h.extra++
	case flags == packet.SYN:
		h.under[remote] = &attempt{began: at}
	case a == nil:
	case flags&packet.RST != 0:
		h.report(remote, a, at.Sub(a.began), "reset by the other end")
	case flags == packet.ACK:
		delete(h.under, remote)
	}
}
