package agents

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/fleet"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// An agent that comes back while its last session still stores a report must be told of that report:
// what a welcome does not know, the agent may drop.
func TestAWelcomeKnowsWhatTheSessionBeforeItStores(t *testing.T) {
	run(t, func(b *bench) {
		reached, free := make(chan struct{}), make(chan struct{})
		var once sync.Once
		b.history.BeforeAppend = func(*synmeshv1.Report) error {
			once.Do(func() { close(reached) })
			<-free
			return nil
		}
		old := b.join()
		old.Report(report(1, 3))
		<-reached
		old.Report(report(2, 3)) // waits, and is forgotten with its session
		synctest.Wait()
		next := apitest.Open(b, b.conn)
		next.Hello(hello())
		synctest.Wait()
		old.Leave()
		synctest.Wait()
		close(free)
		w := next.Recv().GetWelcome()
		synctest.Wait()
		if stored := len(b.history.Entries()); stored != 1 || w.GetSequence() != 1 {
			b.Errorf("the welcome tells of %d reports, and %d are stored; both should be 1", w.GetSequence(), stored)
		}
	})
}

// Of several that come at once one is left, and the others are told why.
func TestOneSessionOfAnAgentIsLeftOfManyThatComeAtOnce(t *testing.T) {
	run(t, func(b *bench) {
		var all []*apitest.Agent
		ended := make(chan error, ownGreeting)
		for range ownGreeting {
			a := apitest.Open(b, b.conn)
			a.Hello(hello())
			all = append(all, a)
			go func() {
				_, err := a.End()
				ended <- err
			}()
		}
		synctest.Wait()
		if len(ended) != ownGreeting-1 {
			b.Errorf("%d of %d sessions have ended, want all but one", len(ended), ownGreeting)
		}
		for range len(ended) {
			if err := <-ended; !strings.Contains(err.Error(), fleet.Newer) {
				b.Errorf("a session ended with %v", err)
			}
		}
		for _, a := range all {
			a.Leave()
		}
		<-ended
	})
}
