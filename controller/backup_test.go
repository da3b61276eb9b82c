package controller

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/backup"
	"github.com/synmesh/synmesh/controller/history/memory"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// backedUp returns a backup as it comes over the wire.
func (r *running) backedUp(t *testing.T) (data []byte, err error) {
	t.Helper()
	stream, err := synmeshv1.NewBackupServiceClient(r.conn).Backup(t.Context(), &synmeshv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, err
		}
		data = append(data, part.GetData()...)
	}
}

// report has an agent report so many times, and waits until that is stored.
func report(t *testing.T, a *apitest.Agent, from, to uint64) {
	t.Helper()
	for n := from; n <= to; n++ {
		a.Report(apitest.Report(5, n, apitest.Results("runs/a", "db.fra:5432", time.Now(), 10)))
		if got := a.Acknowledged(); got != n {
			t.Fatalf("report %d is acknowledged, want %d", got, n)
		}
	}
}

// A controller whose disk is lost goes on from a backup that was taken while it ran: its
// agents are let in with what they have, and what they had sent before is there once.
func TestAControllerGoesOnFromABackup(t *testing.T) {
	c := start(t, config(t.TempDir()))
	a, _ := c.join(t, "fra-1")
	a.Recv() // the timetable
	report(t, a, 1, 3)
	data, err := c.backedUp(t)
	if err != nil {
		t.Fatal(err)
	}
	report(t, a, 4, 5)
	c.stop()

	dir := filepath.Join(t.TempDir(), "restored")
	about, err := backup.Restore(t.Context(), bytes.NewReader(data), dir)
	if err != nil || about.Controller != "controller-1" {
		t.Fatal(about, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca", "root.key")); !os.IsNotExist(err) {
		t.Errorf("the root's key is in the backup: %v", err)
	}
	check := func() (bad []Finding, files int) {
		t.Helper()
		if err := Check(t.Context(), dir, func(f Finding) {
			if files++; !f.OK() {
				bad = append(bad, f)
			}
		}); err != nil {
			t.Fatal(err)
		}
		return bad, files
	}
	if bad, files := check(); len(bad) > 0 || files < 6 {
		t.Errorf("of %d files there are %+v", files, bad)
	}

	again := start(t, config(dir))
	again.agents = c.agents
	b, sequence := again.join(t, "fra-1")
	if b.Recv().GetTimetable() == nil || sequence != 3 {
		t.Errorf("the welcome says %d, want 3", sequence)
	}
	report(t, b, 4, 5)
	if n := again.list(t, "runs/a"); n != 50 {
		t.Errorf("%d results are stored, want 50", n)
	}
	audit, err := synmeshv1.NewIdentityServiceClient(again.conn).ListAuditEntries(t.Context(), &synmeshv1.ListAuditEntriesRequest{})
	if err != nil || !strings.Contains(audit.String(), "take backup") {
		t.Errorf("the audit log does not tell of the backup: %v, %v", audit, err)
	}
	if bad, _ := check(); len(bad) != 1 || bad[0].File != "registry/registry.db" || bad[0].Advice != adviceStop {
		t.Errorf("while the controller runs there are %+v", bad)
	}
}

func TestCheckTellsWhatToDo(t *testing.T) {
	dir := t.TempDir()
	c := start(t, config(dir))
	a, _ := c.join(t, "fra-1")
	a.Recv()
	report(t, a, 1, 3)
	c.stop()
	intakes, err := filepath.Glob(filepath.Join(dir, "history", "intake-*.db"))
	if err != nil || len(intakes) == 0 {
		t.Fatal(intakes, err)
	}
	for _, path := range []string{filepath.Join(dir, "ca", "intermediate.pem"), filepath.Join(dir, "gossip.json"), intakes[0], filepath.Join(dir, "registry", "registry.db")} {
		if err := os.WriteFile(path, []byte("no"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	advice := make(map[string]string)
	if err := Check(t.Context(), dir, func(f Finding) {
		if !f.OK() {
			advice[f.File] = f.Advice
		}
	}); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"ca/intermediate.pem": adviceRestore, "gossip.json": adviceRestore, "registry/registry.db": adviceRestore,
		"history/" + filepath.Base(intakes[0]): adviceDrop,
	} {
		if advice[file] != want {
			t.Errorf("%s: %q, want %q", file, advice[file], want)
		}
	}
	if len(advice) != 4 {
		t.Errorf("%v", advice)
	}
	for what, dir := range map[string]string{"nothing": filepath.Join(dir, "nowhere"), "a file": intakes[0], "some folder": t.TempDir()} {
		if err := Check(t.Context(), dir, func(Finding) {}); err == nil {
			t.Errorf("%s is well", what)
		}
	}
}

// Another history takes bbolt's place, and nobody else is touched.
func TestAControllerWithAHistoryInMemory(t *testing.T) {
	cfg := config(t.TempDir())
	kept, err := memory.New(memory.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Keep = kept
	c := start(t, cfg)
	a, _ := c.join(t, "fra-1")
	a.Recv()
	report(t, a, 1, 4)
	if n := c.list(t, "runs/a"); n != 40 {
		t.Errorf("%d results are stored, want 40", n)
	}
	if _, err := c.backedUp(t); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "where it is kept") {
		t.Errorf("a backup of what is not on the disk: %v", err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "history")); !os.IsNotExist(err) {
		t.Errorf("there is a folder of a history: %v", err)
	}
}
