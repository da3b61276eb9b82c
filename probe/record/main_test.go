//go:build linux

package record

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/synmesh/synmesh/internal/lab"
)

func TestMain(m *testing.M) {
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
