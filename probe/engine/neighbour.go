package engine

import "time"

const (
	// neighbourKept is how long a neighbour that is spoken to is surely not
	// forgotten: the kernel lets it go after a minute, if it has to.
	neighbourKept = 30 * time.Second
	// maxNeighbours is of how many targets a task asks where they are: for a
	// sweep that would cost as much as the probes do.
	maxNeighbours = 1000
)

// lookup tells whether the kernel has to look for a neighbour before the
// target's SYN can leave. It asks before the first probe, and after a pause.
func (t *task) lookup(to *target, now time.Duration) bool {
	if len(t.targets) > maxNeighbours {
		return false
	}
	if now >= to.neighbour {
		known, err := t.engine.router.Neighbour(to.way.src, to.remote.Addr(), to.way.device)
		if err != nil || !known {
			return err == nil // where there is no route, the SYN will tell
		}
	}
	to.neighbour = now + neighbourKept
	return false
}
