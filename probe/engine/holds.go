package engine

// Holds tells whether the engine holds the source port now, for the probes of a
// Do that is under way: as long as it does, nobody else on this host has it. That
// of warm-ups is none. It is safe for concurrent use.
func (e *Engine) Holds(port uint16) bool {
	p := e.ports
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lent[port]
}
