package record

import (
	"hash/maphash"

	"github.com/synmesh/synmesh/probe/rawsock"
)

// copies finds packets that are seen again on their way through the host, as
// with a bridge, a bond or a VLAN: the same bytes, going the same way, on another
// device. Whoever retransmits, uses the same device again.
type copies struct {
	seed  maphash.Seed
	last  [64]sighting // a ring
	next  int
	count int
}

type sighting struct {
	sum      uint64
	outgoing bool
	device   int // where it was seen first
	stamp    int64
}

// copyTime is how long a packet takes at the most from device to device, in nanoseconds.
const copyTime = 100e6

// again tells whether the packet has been seen, and remembers it if not.
func (c *copies) again(s *rawsock.Seen) bool {
	if c.count == 0 {
		c.seed = maphash.MakeSeed()
	}
	sum := maphash.Bytes(c.seed, s.Data)
	for i := range c.count {
		l := &c.last[i]
		if l.sum == sum && l.outgoing == s.Outgoing && l.device != s.Interface && s.Stamp-l.stamp < copyTime {
			return true
		}
	}
	c.last[c.next] = sighting{sum: sum, outgoing: s.Outgoing, device: s.Interface, stamp: s.Stamp}
	c.next = (c.next + 1) % len(c.last)
	c.count = min(c.count+1, len(c.last))
	return false
}
