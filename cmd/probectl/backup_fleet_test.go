//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synmesh/synmesh/controller/backup"
)

func TestABackupIsWrittenByWhoAsksForIt(t *testing.T) {
	f := newFleet(t)
	file := filepath.Join(t.TempDir(), "backup.tar")
	if out := f.said("backup", "--file", file); !strings.HasPrefix(out, file+" written: ") {
		t.Errorf("got %q", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	data, err := os.Open(file)
	must(t, err)
	defer data.Close()
	if _, err := backup.Verify(t.Context(), data); err != nil {
		t.Error(err)
	}
	if _, stderr, code := f.probectl("backup", "--file", file); code != exitUsage || !strings.Contains(stderr, "is there already") {
		t.Errorf("twice: exit code %d, %q", code, stderr)
	}
	if audit := f.said("get", "audit", "-o", "csv"); !strings.Contains(audit, "user/admin/operator,take backup,") {
		t.Errorf("the audit log does not tell of it:\n%s", audit)
	}
	must(t, os.WriteFile(file+"2.tmp", nil, 0o600))
	if _, stderr, code := f.probectl("backup", "--file", file+"2"); code != exitUsage || !strings.Contains(stderr, "remove it") {
		t.Errorf("beside one that was cut off: exit code %d, %q", code, stderr)
	}
	if _, stderr, code := f.probectl("backup"); code != exitUsage || !strings.Contains(stderr, "--file") {
		t.Errorf("without a file: exit code %d, %q", code, stderr)
	}
}
