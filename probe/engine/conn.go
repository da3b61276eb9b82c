package engine

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
	"github.com/synmesh/synmesh/probe/rawsock"
)

// conn is the connection of a full handshake, from its SYN-ACK to the end of its
// TIME_WAIT. We acknowledge the SYN-ACK and close at once; what the target says
// meanwhile is acknowledged and forgotten.
type conn struct {
	state   connState
	next    uint32 // what we expect from the target
	echo    uint32 // the target's latest timestamp
	finSent int64  // stamp of our FIN; 0 while it is unknown
	acked   int64  // stamp of its acknowledgement
	fin     int64  // stamp of the target's FIN
	reset   bool   // the target sent a RST
	said    bool   // there is something to acknowledge
	fins    int    // how often our FIN was sent
}

type connState uint8

const (
	connNone    connState = iota // no SYN-ACK yet
	connClosing                  // our FIN has been sent
	connWaiting                  // TIME_WAIT
)

// timeWait is how long a connection's addresses and ports stay reserved, as
// in Linux (RFC 9293 section 3.4.2 has 4 minutes).
const timeWait = time.Minute

// pair names a connection; our address follows from the target's.
type pair struct {
	local  uint16
	remote netip.AddrPort
}

func (f *flight) pair() pair { return pair{f.local, f.target.plain} }

// busy tells why no connection can be opened now from the flight's port, or
// returns nil. In TIME_WAIT one can if both sides have timestamps: ours rise, so
// that the target tells old segments from new (RFC 6191). The lock is held.
func (e *Engine) busy(f *flight) error {
	before := e.conns[f.pair()]
	switch {
	case before == nil:
	case before.conn.state != connWaiting:
		return fmt.Errorf("the connection before, from port %d, is not closed yet; a longer interval or more flows would help", f.local)
	case !before.answer.synAck.Timestamps:
		return fmt.Errorf("port %d is in TIME_WAIT towards a target without timestamps; an interval of %v or more flows would help", f.local, timeWait)
	}
	return nil
}

// disconnect forgets the flight's connection. The lock is held.
func (e *Engine) disconnect(f *flight) {
	if e.conns[f.pair()] == f {
		delete(e.conns, f.pair())
	}
}

// result says how the connection was closed.
func (c *conn) result() *probe.Close {
	r := &probe.Close{Ending: probe.Unclosed}
	switch {
	case c.reset:
		r.Ending = probe.Reset
	case c.closed():
		r.Ending = probe.Orderly
	}
	if c.finSent != 0 && c.acked != 0 {
		r.Ack = max(0, time.Duration(c.acked-c.finSent))
	}
	if c.finSent != 0 && c.fin != 0 {
		r.Fin = max(0, time.Duration(c.fin-c.finSent))
	}
	return r
}

// closed tells whether both directions are closed and acknowledged.
func (c *conn) closed() bool { return c.acked != 0 && c.fin != 0 }

// hears takes in a segment of the connection (RFC 9293 section 3.10.7), as far
// as one that is only being closed needs it: in order, or not at all. The lock is held.
func (f *flight) hears(s *packet.Segment, stamp int64) {
	c := &f.conn
	if s.Flags&packet.ACK != 0 && s.Ack-f.isn > 2 {
		return // acknowledges what we never sent
	}
	if s.Flags&packet.RST != 0 {
		c.reset = c.reset || s.Seq == c.next // RFC 5961 section 3.2
		return
	}
	if s.Options.Timestamps && int32(s.Options.TSVal-c.echo) > 0 {
		c.echo = s.Options.TSVal
	}
	if s.Flags&packet.ACK != 0 && s.Ack == f.isn+2 && c.acked == 0 {
		c.acked = stamp
	}
	if s.Len() == 0 {
		return
	}
	c.said = true // what is old or out of order is acknowledged, too
	if s.Seq != c.next || s.Flags&packet.SYN != 0 {
		return
	}
	c.next += uint32(s.Len())
	if s.Flags&packet.FIN != 0 {
		c.fin = stamp
	}
}

// proceed does what a connection wants next: it closes one that has just been
// opened, acknowledges what was said, and hands over the result of one that is closed.
func (t *task) proceed(f *flight) {
	e := t.engine
	e.mu.Lock()
	c := &f.conn
	begin := c.state == connNone
	if begin {
		c.state, c.next, c.echo = connClosing, f.answer.synAck.Seq+1, f.answer.tsval
	}
	if begin {
		c.fins = 1
	}
	acknowledge := c.said
	c.said = false
	snapshot := *c
	e.mu.Unlock()

	var err error
	switch {
	case begin:
		t.enqueue(f, t.closingStage())
		if err = t.say(f, &snapshot, packet.ACK, f.isn+1); err == nil {
			err = t.say(f, &snapshot, packet.FIN|packet.ACK, f.isn+1)
		}
	case acknowledge && f.over && !snapshot.closed():
		t.reset(f, &snapshot) // it was given up; the target does not know yet
	case acknowledge:
		err = t.say(f, &snapshot, packet.ACK, f.isn+2)
	}
	switch {
	case f.over: // in TIME_WAIT: there is nothing more to tell
	case err != nil:
		t.reset(f, &snapshot)
		t.drop(f, err)
	case snapshot.reset || snapshot.closed():
		t.endConn(f)
	}
}

// maxFins is how often a FIN is sent that is not acknowledged, within the timeout.
const maxFins = 4

// closeAgain is called when a connection has been closing for a while: it
// repeats a FIN that is not acknowledged, or gives the connection up.
func (t *task) closeAgain(f *flight) {
	e := t.engine
	e.mu.Lock()
	c := &f.conn
	c.fins++
	snapshot := *c
	e.mu.Unlock()
	if snapshot.fins > maxFins {
		t.endConn(f)
		return
	}
	t.enqueue(f, t.closingStage())
	if snapshot.acked == 0 {
		// If this does not leave either, the next may, or the connection is given up.
		_ = t.say(f, &snapshot, packet.FIN|packet.ACK, f.isn+1)
	}
}

// endConn hands over the result of a connection that is closed, or has to be
// now, and keeps its ports in TIME_WAIT.
func (t *task) endConn(f *flight) {
	e := t.engine
	e.mu.Lock()
	e.settle() // our FIN's stamp
	f.conn.state = connWaiting
	e.leave(f)
	snapshot := f.conn
	if snapshot.reset {
		e.disconnect(f) // nothing is left that could come late (RFC 9293 section 3.10.7.4)
	}
	e.mu.Unlock()
	if !snapshot.reset && !snapshot.closed() {
		t.reset(f, &snapshot)
	}
	f.close = snapshot.result()
	t.enqueue(f, t.timeWaitStage())
	t.finish(f, reading{}, 0)
}

// reset ends a connection that the target has not closed. Without an
// acknowledgement of our FIN, nobody knows which number it expects; it takes
// the RST that fits, and challenges the other (RFC 5961 section 3.2).
func (t *task) reset(f *flight, c *conn) {
	if c.acked == 0 {
		_ = t.say(f, c, packet.RST|packet.ACK, f.isn+1)
	}
	// If neither leaves, the target finds out by itself.
	_ = t.say(f, c, packet.RST|packet.ACK, f.isn+2)
}

// say sends a segment of the connection.
func (t *task) say(f *flight, c *conn, flags packet.Flags, seq uint32) error {
	s := packet.Segment{
		Src: netip.AddrPortFrom(f.way.src, f.local), Dst: f.target.plain,
		Seq: seq, Ack: c.next, Flags: flags, Window: 502, // 64256 bytes, scaled by 7
	}
	if f.answer.synAck.Timestamps {
		s.Options = packet.Options{Timestamps: true, TSVal: t.engine.tick() + f.ahead, TSEcr: c.echo}
	}
	b, err := packet.AppendTCP(nil, &s)
	if err != nil {
		return err
	}
	_, err = t.engine.sendSome([]rawsock.Datagram{t.datagram(f, b)}, flags&packet.FIN != 0)
	return err
}
