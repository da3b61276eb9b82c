package engine

import (
	"fmt"
	"log/slog"

	"github.com/synmesh/synmesh/probe/rawsock"
	"github.com/synmesh/synmesh/probe/resolve"
)

// Stamping is a way to learn when a SYN left and when its answer came.
type Stamping uint8

const (
	// Quiet reads transmit stamps from the sender's error queue: the device's
	// driver takes them. It costs little to what else the host sends, and is the default.
	Quiet Stamping = iota
	// Tap reads them from a packet socket, where packets pass before they reach
	// the driver, so it needs none that takes stamps. It slows down every packet that the host sends.
	Tap
)

// String returns "quiet" or "tap".
func (s Stamping) String() string {
	if s == Tap {
		return "tap"
	}
	return "quiet"
}

// MarshalText implements encoding.TextMarshaler.
func (s Stamping) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads "quiet" or "tap".
func (s *Stamping) UnmarshalText(b []byte) error {
	switch string(b) {
	case "quiet":
		*s = Quiet
	case "tap":
		*s = Tap
	default:
		return fmt.Errorf("stamping %q is unknown; it is quiet or tap", b)
	}
	return nil
}

// Config configures an Engine. The zero value works.
type Config struct {
	Stamping Stamping
	// Ports are the source ports to choose from; zero is DefaultPorts. A port
	// that another socket has is passed over.
	Ports rawsock.PortRange
	// Names looks up where targets are, at the beginning and every now and then
	// as long as they are probed. Its Logger is the Engine's unless it has one.
	Names  resolve.Resolver
	Logger *slog.Logger // nil discards
}

// DefaultPorts lie outside the range from which Linux takes ephemeral ports.
var DefaultPorts = rawsock.PortRange{First: 61000, Last: 61255}

func (c Config) withDefaults() Config {
	if c.Ports == (rawsock.PortRange{}) {
		c.Ports = DefaultPorts
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Names.Logger == nil {
		c.Names.Logger = c.Logger
	}
	return c
}
