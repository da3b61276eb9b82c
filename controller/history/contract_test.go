package history_test

import (
	"context"
	"testing"
	"time"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/history/historytest"
)

func TestItIsAHistory(t *testing.T) {
	historytest.Test(t, historytest.Subject{
		Open: func(dir string, now func() time.Time) (historytest.History, error) {
			return history.OpenWith(dir, now)
		},
		Settle: func(h historytest.History) error { return h.(*history.Store).ArchiveAll(context.Background()) },
	})
}
