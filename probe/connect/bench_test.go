//go:build linux && !386 && !s390x

package connect

import (
	"context"
	"fmt"
	"testing"

	"github.com/synmesh/synmesh/probe"
)

// BenchmarkProbe carries out as many probes as it can of 64 ports of another
// host. What the target does, on the same cores, is in the figure.
func BenchmarkProbe(b *testing.B) {
	for _, outcome := range []probe.Outcome{probe.Open, probe.Closed} {
		b.Run(outcome.String(), func(b *testing.B) {
			n := twoHosts(b, nil)
			s := spec(b, max(1, b.N/64), fmt.Sprintf("%s:%d-%d", n.to.Addr4(), 1000, 1063))
			if outcome == probe.Open {
				for _, target := range s.Targets {
					listenOn(b, n.to, target.Address())
				}
			}
			s.Interval = probe.MinInterval
			inside(b, n.from, func() {
				b.ReportAllocs()
				b.ResetTimer()
				must(b, New(Config{}).Do(context.Background(), s, func(r *probe.Result) {
					if r.Outcome != outcome {
						b.Errorf("%v %s", r.Outcome, r.Err)
					}
				}))
			})
		})
	}
}
