package probe

import (
	"fmt"
	"net/netip"
)

// Sending says how packets are to leave, where that is not left to the host.
type Sending struct {
	// Source is the address to send from; it has to be one of the host's.
	Source netip.Addr
	// Interface is the name of the device to leave by.
	Interface string
	// DSCP is the differentiated services code point, 0 to 63 (RFC 2474).
	DSCP uint8
	// TTL is the time to live or hop limit; 0 is the host's default.
	TTL uint8
	// ECN offers explicit congestion notification (RFC 3168 section 6.1.1).
	ECN bool
}

func (s *Sending) validate() error {
	if s.DSCP > 63 {
		return fmt.Errorf("DSCP %d is outside 0 to 63", s.DSCP)
	}
	if s.Source.IsValid() && (s.Source.IsUnspecified() || s.Source.IsMulticast()) {
		return fmt.Errorf("source %s is no host's address", s.Source)
	}
	if len(s.Interface) > 15 { // IFNAMSIZ, without the zero at the end
		return fmt.Errorf("interface %q: a name has 15 characters at the most", s.Interface)
	}
	return nil
}
