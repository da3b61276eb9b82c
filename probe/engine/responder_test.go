//go:build linux

package engine

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// plot is what a responder does: the replies to "SYN 1", the first SYN that it
// hears, to "SYN 2", to "FIN 1", "ACK 1" and so on. What is not in it is not answered.
type plot map[string][]reply

// reply is one packet of a plot, sent some time after what it answers.
type reply struct {
	after  time.Duration
	packet func(h *heard, s *packet.Segment) ([]byte, error) // from its IP header on
}

// in has the reply sent later.
func (r reply) in(after time.Duration) reply {
	r.after = after
	return r
}

// seg is a TCP segment that answers another as a Linux host would, but for what change makes of it.
func seg(flags packet.Flags, change ...func(r *packet.Segment, h *heard)) reply {
	return reply{packet: func(h *heard, s *packet.Segment) ([]byte, error) {
		r := packet.Segment{
			Src: s.Dst, Dst: s.Src, Seq: targetISN, Ack: s.Seq + uint32(s.Len()), Flags: flags, Window: 4321, TTL: 57,
			Options: packet.Options{Timestamps: true, TSVal: 7, TSEcr: s.Options.TSVal},
		}
		switch {
		case flags&packet.RST != 0:
			r.Options, r.Seq, r.Window = packet.Options{}, 0, 0
		case flags&packet.SYN != 0:
			o := &r.Options
			o.HasMSS, o.MSS, o.HasWindowScale, o.WindowScale, o.SACKPermitted = true, 1400, true, 7, true
		default:
			r.Seq++
		}
		for _, c := range change {
			c(&r, h)
		}
		return packet.AppendIP(nil, &r)
	}}
}

const targetISN = 1000

// icmp is an error that a router sends about the SYN that it answers.
func icmp(kind, code uint8, change ...func(e *packet.ICMPError, about *packet.Segment)) reply {
	return reply{packet: func(h *heard, s *packet.Segment) ([]byte, error) {
		e, about := packet.ICMPError{From: routerOf(s.Dst.Addr()), Type: kind, Code: code}, *s
		for _, c := range change {
			c(&e, &about)
		}
		quoted, err := packet.AppendIP(nil, &about)
		if err != nil {
			return nil, err
		}
		return packet.AppendICMP(nil, &e, quoted)
	}}
}

// routerOf is somebody on the way to an address.
func routerOf(to netip.Addr) netip.Addr {
	if to.Is4() {
		return netip.MustParseAddr("10.66.0.9")
	}
	return netip.MustParseAddr("fd66::9")
}

// heard is what came to a responder's port.
type heard struct {
	syns []packet.Segment
	all  []packet.Segment
	// of counts the segments that were heard by what they are: SYN, FIN, RST or ACK.
	of map[string]int
}

// responder acts out a plot for one port of a host. What it sends enters the
// wire at the router, so that it may bear any address.
type responder struct {
	t       *testing.T
	out     *injector
	capture *rawsock.Capture
	port    uint16
	pending sync.WaitGroup

	mu    sync.Mutex
	plot  plot
	heard heard
}

// respond has the port on the far host answered by a plot, which act gives it.
func respond(t *testing.T, n network, port uint16) *responder {
	t.Helper()
	r := &responder{t: t, out: inject(t, n), port: port}
	silence(t, n, port)
	must(t, n.to.Do(func() (err error) {
		r.capture, err = rawsock.OpenCapture(rawsock.PortRange{First: port, Last: port})
		return err
	}))
	listening := make(chan struct{})
	go func() {
		defer close(listening)
		r.listen()
	}()
	t.Cleanup(func() {
		r.capture.Close()
		<-listening
		r.pending.Wait()
	})
	return r
}

// silence has the far host's kernel say nothing on a port.
func silence(t *testing.T, n network, port uint16) {
	t.Helper()
	must(t, n.to.Do(func() error {
		guard, err := rawsock.HoldPort(port)
		if err == nil {
			t.Cleanup(func() { guard.Close() })
			err = guard.Silence()
		}
		return err
	}))
}

// act begins a plot, with nothing heard so far.
func (r *responder) act(p plot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plot, r.heard = p, heard{of: make(map[string]int)}
}

func (r *responder) listen() {
	var p packet.Packet
	for r.capture.Wait(true) == nil {
		_ = r.capture.Take(func(frames []rawsock.Frame, _ uint64) {
			for _, f := range frames {
				if p.Decode(f.Data) == nil && p.Kind == packet.KindTCP {
					r.hear(p.TCP)
				}
			}
		})
	}
}

func (r *responder) hear(s packet.Segment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what := "ACK"
	switch {
	case s.Flags&packet.RST != 0:
		what = "RST"
	case s.Flags&packet.SYN != 0:
		what = "SYN"
		r.heard.syns = append(r.heard.syns, s)
	case s.Flags&packet.FIN != 0:
		what = "FIN"
	}
	s.Payload = nil // is valid only now
	r.heard.all = append(r.heard.all, s)
	r.heard.of[what]++
	for _, reply := range r.plot[fmt.Sprint(what, " ", r.heard.of[what])] {
		b, err := reply.packet(&r.heard, &s)
		if err != nil {
			r.t.Error(err)
			continue
		}
		if reply.after == 0 {
			r.out.send(b)
			continue
		}
		r.pending.Add(1)
		time.AfterFunc(reply.after, func() {
			defer r.pending.Done()
			r.out.send(b)
		})
	}
}

// counts tells how often each kind of segment has been heard.
func (r *responder) counts() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.heard.of)
}

// segments returns what has been heard so far.
func (r *responder) segments() []packet.Segment {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]packet.Segment(nil), r.heard.all...)
}

// injector puts packets on the wire from the router to a host.
type injector struct {
	t  *testing.T
	fd int
	to [2]unix.SockaddrLinklayer // IPv4, IPv6
}

func inject(t *testing.T, n network) *injector {
	t.Helper()
	i := &injector{t: t}
	var mac net.HardwareAddr
	must(t, n.from.Do(func() error {
		link, err := net.InterfaceByName(n.from.Interface())
		if err == nil {
			mac = link.HardwareAddr
		}
		return err
	}))
	must(t, n.router.Do(func() (err error) {
		i.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	t.Cleanup(func() { unix.Close(i.fd) })
	for v, protocol := range [2]uint16{unix.ETH_P_IP, unix.ETH_P_IPV6} {
		to := unix.SockaddrLinklayer{Protocol: protocol>>8 | protocol<<8, Ifindex: n.wire, Halen: uint8(len(mac))}
		copy(to.Addr[:], mac)
		i.to[v] = to
	}
	return i
}

// send sends a packet that begins with its IP header.
func (i *injector) send(b []byte) {
	to := &i.to[0]
	if b[0]>>4 == 6 {
		to = &i.to[1]
	}
	if err := unix.Sendto(i.fd, b, 0, to); err != nil {
		i.t.Error(err)
	}
}

// eachWay runs a test over both versions of IP and with both kinds of stamps,
// each in a network of its own and all at a time.
func eachWay(t *testing.T, test func(t *testing.T, n network, to netip.Addr, stamping Stamping)) {
	for _, stamping := range []Stamping{Quiet, Tap} {
		for _, version := range []string{"IPv4", "IPv6"} {
			t.Run(stamping.String()+" "+version, func(t *testing.T) {
				t.Parallel()
				n := twoHosts(t)
				to := n.to.Addr4()
				if version == "IPv6" {
					to = n.to.Addr6()
				}
				test(t, n, to, stamping)
			})
		}
	}
}

// addressOf returns a host's address of the same version as another.
func addressOf(n *lab.Node, like netip.Addr) netip.Addr {
	if like.Is4() {
		return n.Addr4()
	}
	return n.Addr6()
}

// eventually waits until check says that all is as it has to be; the text says what is not.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	wrong := check()
	for deadline := time.Now().Add(3 * time.Second); wrong != "" && time.Now().Before(deadline); wrong = check() {
		time.Sleep(5 * time.Millisecond)
	}
	if wrong != "" {
		t.Error(wrong)
	}
}
