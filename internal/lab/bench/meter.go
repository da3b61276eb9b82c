//go:build linux

package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/synmesh/synmesh/internal/lab"
)

// meterShare is the share of the packets that a rate is made of: the first
// and the last hundredth are left out, since programs begin and end in their own ways.
const meterShare = 0.98

// meter counts, at the target host, the packets that come in over time. All
// sweepers are measured by it, whatever they say themselves.
type meter struct {
	ticks []tick
	ended chan error
	end   chan struct{}
}

type tick struct {
	at      time.Time
	packets uint64
}

func startMeter(on *lab.Node) (*meter, error) {
	m := &meter{ended: make(chan error, 1), end: make(chan struct{})}
	var h *netlink.Handle
	var index int
	err := on.Do(func() (err error) {
		if h, err = netlink.NewHandle(); err != nil {
			return err
		}
		link, err := h.LinkByName(on.Interface())
		if err != nil {
			h.Close()
			return err
		}
		index = link.Attrs().Index
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("start the meter: %w", err)
	}
	go func() {
		defer h.Close()
		m.ended <- m.run(h, index)
	}()
	return m, nil
}

func (m *meter) run(h *netlink.Handle, index int) error {
	every := time.NewTicker(5 * time.Millisecond)
	defer every.Stop()
	for {
		link, err := h.LinkByIndex(index)
		if err != nil {
			return err
		}
		m.ticks = append(m.ticks, tick{time.Now(), link.Attrs().Statistics.RxPackets})
		select {
		case <-every.C:
		case <-m.end:
			return nil
		}
	}
}

// stop returns how long it took for meterShare of the packets to arrive.
func (m *meter) stop() (time.Duration, error) {
	close(m.end)
	if err := <-m.ended; err != nil {
		return 0, fmt.Errorf("meter: %w", err)
	}
	return m.span()
}

func (m *meter) span() (time.Duration, error) {
	if len(m.ticks) < 2 {
		return 0, errors.New("the meter has not run")
	}
	first, last := m.ticks[0].packets, m.ticks[len(m.ticks)-1].packets
	if last == first {
		return 0, errors.New("no packet has arrived")
	}
	aside := float64(last-first) * (1 - meterShare) / 2
	from, to := m.when(float64(first)+aside), m.when(float64(last)-aside)
	return max(to.Sub(from), time.Microsecond), nil
}

// when returns the time at which the count came to n.
func (m *meter) when(n float64) time.Time {
	before := m.ticks[0]
	for _, t := range m.ticks {
		if float64(t.packets) >= n {
			if t.packets == before.packets {
				return t.at
			}
			share := (n - float64(before.packets)) / float64(t.packets-before.packets)
			return before.at.Add(time.Duration(share * float64(t.at.Sub(before.at))))
		}
		before = t
	}
	return before.at
}
