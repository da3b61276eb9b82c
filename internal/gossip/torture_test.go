package gossip

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestTortureFortyMembersPartedForFiveMinutes is in real time and over real
// sockets what its shorter sister is in memory.
func TestTortureFortyMembersPartedForFiveMinutes(t *testing.T) {
	if os.Getenv("SYNMESH_TORTURE") != "1" {
		t.Skip("it takes seven minutes; SYNMESH_TORTURE=1 asks for it")
	}
	c := gather(t, 40, nil)
	t.Logf("healed in %v", c.part(t, 5*time.Minute).Round(time.Millisecond))
	c.stop()
	// With intervals as in production, what memberlist leaves behind takes as
	// long to end as a probe.
	for end := time.Now().Add(time.Minute); goleak.Find() != nil && time.Now().Before(end); {
		time.Sleep(time.Second)
	}
}
