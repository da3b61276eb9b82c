package probe

import "fmt"

// Outcome says how a probe ended.
type Outcome uint8

// The outcomes. The zero value is no outcome: a Result always carries one of these.
const (
	Open        Outcome = iota + 1 // a SYN-ACK that acknowledges our SYN
	Closed                         // a RST that acknowledges our SYN
	Unreachable                    // an ICMP error that quotes our SYN
	Timeout                        // nothing within the time allowed
	Error                          // we failed; Result.Err says why, and no round trip is given
)

var outcomeWords = words[Outcome]{"outcome", []string{"", "open", "closed", "unreachable", "timeout", "error"}, false}

// Outcomes lists every outcome in the order in which tables show them.
func Outcomes() []Outcome { return []Outcome{Open, Closed, Unreachable, Timeout, Error} }

// String returns the outcome's word, as it stands in JSON and tables.
func (o Outcome) String() string { return outcomeWords.name(o) }

// MarshalText implements encoding.TextMarshaler.
func (o Outcome) MarshalText() ([]byte, error) { return outcomeWords.marshal(o) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *Outcome) UnmarshalText(b []byte) (err error) { *o, err = outcomeWords.parse(b); return err }

// Answered tells whether the target itself answered, so that a round trip was measured.
func (o Outcome) Answered() bool { return o == Open || o == Closed }

// Stamp says where the two times of a round trip were taken: the nearer to
// the wire, the smaller the error.
type Stamp uint8

// The places a time is taken at.
const (
	StampHardware Stamp = iota + 1 // by the network device
	StampKernel                    // by the kernel, at the device's driver
	StampTCPInfo                   // by the kernel's TCP, read through TCP_INFO
	StampUser                      // by this process
)

var stampWords = words[Stamp]{"stamp", []string{"", "hardware", "kernel", "tcp_info", "user"}, false}

// String returns the stamp's word, as it stands in JSON and tables.
func (s Stamp) String() string { return stampWords.name(s) }

// MarshalText implements encoding.TextMarshaler.
func (s Stamp) MarshalText() ([]byte, error) { return stampWords.marshal(s) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Stamp) UnmarshalText(b []byte) (err error) { *s, err = stampWords.parse(b); return err }

// words gives an enumeration its spelling.
type words[T ~uint8] struct {
	kind  string
	names []string
	zero  bool // that the zero value has a name, too
}

func (w words[T]) name(v T) string {
	if int(v) < len(w.names) {
		return w.names[v]
	}
	return fmt.Sprintf("%s(%d)", w.kind, v)
}

func (w words[T]) marshal(v T) ([]byte, error) {
	if v == 0 && !w.zero || int(v) >= len(w.names) {
		return nil, fmt.Errorf("%s %d has no name", w.kind, v)
	}
	return []byte(w.names[v]), nil
}

func (w words[T]) parse(b []byte) (T, error) {
	first := 1
	if w.zero {
		first = 0
	}
	for i, name := range w.names[first:] {
		if name == string(b) {
			return T(first + i), nil
		}
	}
	return 0, fmt.Errorf("%s %q is unknown; it is one of %v", w.kind, b, w.names[first:])
}
