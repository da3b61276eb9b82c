//go:build linux

package record

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/engine"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/pcap"
)

// twoHosts returns hosts on one wire, of which the second listens on port 7000.
func twoHosts(t *testing.T) (from *lab.Node, target netip.AddrPort) {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	from, err = l.Host("from")
	must(t, err)
	to, err := l.Host("to")
	must(t, err)
	_, err = l.Wire(from, to)
	must(t, err)
	must(t, l.Route())
	target = netip.AddrPortFrom(to.Addr4(), 7000)
	var listener net.Listener
	must(t, to.Do(func() (err error) { listener, err = net.Listen("tcp", target.String()); return err }))
	var accepting errgroup.Group
	accepting.Go(func() error {
		for {
			c, err := listener.Accept()
			if err != nil {
				return nil
			}
			c.Close()
		}
	})
	t.Cleanup(func() { listener.Close(); _ = accepting.Wait() })
	return from, target
}

func engineOn(t *testing.T, n *lab.Node) (e *engine.Engine) {
	t.Helper()
	must(t, n.Do(func() (err error) { e, err = engine.New(engine.Config{}); return err }))
	return e
}

func TestOnlyTheEnginesOwnPacketsAreRecorded(t *testing.T) {
	const count = 20
	from, target := twoHosts(t)
	ours, other := engineOn(t, from), engineOn(t, from)
	var file bytes.Buffer
	shown := 0
	var rec *Recorder
	must(t, from.Do(func() (err error) {
		rec, err = New(Config{
			Ports: engine.DefaultPorts, Holds: ours.Holds, Remotes: []netip.AddrPort{target},
			File: pcap.NewWriter(&file, "test", "", SnapLen), Each: func(*Packet) { shown++ },
		})
		return err
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	running, stop := context.WithCancel(ctx)
	var machinery, work errgroup.Group
	machinery.Go(func() error { return ours.Run(running) })
	machinery.Go(func() error { return other.Run(running) })
	machinery.Go(func() error { return rec.Run(running) })

	spec := probe.Spec{
		Targets: []probe.Target{{Name: "to", Host: target.Addr().String(), Port: target.Port()}},
		Count:   count, Interval: 5 * time.Millisecond, Timeout: time.Second, Flows: 2,
	}
	syns := make(map[uint32]uint16) // our ports by their sequence number
	work.Go(func() error {
		return ours.Do(ctx, spec, func(r *probe.Result) {
			if r.Outcome != probe.Open {
				t.Errorf("%+v", r)
			}
			syns[r.SYN] = r.LocalPort
			if len(syns) == 2*count {
				time.Sleep(20 * time.Millisecond) // the kernel's RST
			}
			if err := rec.Catch(); err != nil {
				t.Error(err)
			}
		})
	})
	work.Go(func() error { return other.Do(ctx, spec, func(*probe.Result) {}) })
	work.Go(func() error { // a program that has a port of the range, too
		d := net.Dialer{LocalAddr: &net.TCPAddr{Port: 61200}}
		return from.Do(func() error {
			c, err := d.DialContext(ctx, "tcp", target.String())
			if err != nil {
				return err
			}
			return c.Close()
		})
	})
	must(t, work.Wait())
	stop()
	must(t, machinery.Wait())
	c := rec.Counts()
	must(t, rec.cfg.File.Close(c.Drops))
	if c.Packets != 3*2*count || shown != 3*2*count || c.Drops != 0 {
		t.Errorf("%+v, %d shown, want %d", c, shown, 3*2*count)
	}
	inFile := make(map[uint32]packet.Flags)
	for _, p := range readBack(t, &file) {
		s := &p.TCP
		isn, port, remote := s.Seq, s.Src.Port(), s.Dst
		switch s.Flags {
		case packet.SYN:
		case packet.SYN | packet.ACK:
			isn, port, remote = s.Ack-1, s.Dst.Port(), s.Src
		case packet.RST:
			isn--
		}
		if want, known := syns[isn]; !known || want != port || remote != target {
			t.Errorf("in the file: %v, which is not ours", s)
		}
		inFile[isn] |= s.Flags
	}
	for isn := range syns {
		if inFile[isn] != packet.SYN|packet.ACK|packet.RST {
			t.Errorf("of the probe with SYN %d there is %v, want a SYN, its answer and a RST", isn, inFile[isn])
		}
	}
}

func readBack(t *testing.T, file io.Reader) (all []packet.Packet) {
	t.Helper()
	r, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	must(t, err)
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		var p packet.Packet
		must(t, p.Decode(data))
		all = append(all, p)
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestAFileThatCannotBeWrittenEndsTheRecorder(t *testing.T) {
	from, target := twoHosts(t)
	var rec *Recorder
	must(t, from.Do(func() (err error) {
		rec, err = New(Config{Ports: engine.DefaultPorts, Holds: func(uint16) bool { return true }, Remotes: []netip.AddrPort{target}, File: pcap.NewWriter(full{}, "", "", SnapLen)})
		return err
	}))
	ended := make(chan error, 1)
	go func() { ended <- rec.Run(t.Context()) }()
	must(t, from.Do(func() error {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{Port: 61000}}).Dial("tcp", target.String())
		if err != nil {
			return err
		}
		return c.Close()
	}))
	select {
	case err := <-ended:
		if err == nil || err.Error() != "record packets: no space left" {
			t.Errorf("the error is %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
		must(t, rec.Close())
		<-ended
	}
}
