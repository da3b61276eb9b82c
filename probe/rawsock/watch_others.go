//go:build !linux

package rawsock

// Watch sees the TCP segments from and to a range of ports in both directions.
type Watch struct{}

// OpenWatch returns ErrUnsupported.
func OpenWatch(PortRange) (*Watch, error) { return nil, ErrUnsupported }

// Wait returns ErrUnsupported.
func (*Watch) Wait() error { return ErrUnsupported }

// Take returns ErrUnsupported.
func (*Watch) Take(func([]Seen, uint64)) error { return ErrUnsupported }

// Close does nothing.
func (*Watch) Close() error { return nil }
