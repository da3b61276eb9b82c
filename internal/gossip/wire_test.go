package gossip

import (
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// cable joins members by their addresses. Cut, it parts those of one side from
// the others.
type cable struct {
	silence time.Duration // that a dial across the cut takes to fail

	mu    sync.Mutex
	apart map[string]bool // one side; empty if it is whole
}

func (c *cable) cut(side ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apart = make(map[string]bool)
	for _, addr := range side {
		c.apart[addr] = true
	}
}

func (c *cable) blocks(a, b string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apart[a] != c.apart[b]
}

// plug is for Config.tune: it puts the cable between the member and its network.
func (c *cable) plug(conf *memberlist.Config) {
	n := conf.Transport.(network)
	conf.Transport = wire{n, c, func() string {
		ip, port, err := n.FinalAdvertiseAddr(conf.AdvertiseAddr, conf.AdvertisePort)
		if err != nil {
			return err.Error()
		}
		return (&net.TCPAddr{IP: ip, Port: port}).String()
	}()}
}

// wire is one end of the cable.
type wire struct {
	memberlist.NodeAwareTransport
	cable *cable
	own   string
}

func (w wire) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if w.cable.blocks(w.own, a.Addr) {
		return time.Now(), nil
	}
	return w.NodeAwareTransport.WriteToAddress(b, a)
}

func (w wire) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	if w.cable.blocks(w.own, a.Addr) {
		<-time.After(min(d, w.cable.silence))
		return nil, errors.New("the wire is cut")
	}
	return w.NodeAwareTransport.DialAddressTimeout(a, d)
}
