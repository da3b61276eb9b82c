package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func init() {
	children["fill"] = fill
}

// A file system of 8 MiB, in a mount namespace of the child's own.
func TestADiskFullAcknowledgesNothing(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], t.TempDir())
	cmd.Env = append(os.Environ(), childEnv+"=fill")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || strings.Contains(string(out), errNoMount.Error()):
		t.Skipf("no mount namespace here: %v %s", err, out)
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

var errNoMount = errors.New("no file system can be mounted")

func fill(dir string) (err error) {
	if err := syscall.Mount("history", dir, "tmpfs", 0, "size=8m"); err != nil {
		return fmt.Errorf("%w: %v", errNoMount, err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 4<<20), 0o600); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := run(Config{Dir: dir})
	if err != nil {
		return err
	}
	var sequence uint64
	for err == nil {
		sequence++
		_, err = s.Append(ctx, "a", large(sequence))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("report %d: %w", sequence, err)
	}
	fmt.Println(err)
	for range 50 {
		if stored, err := s.Append(ctx, "a", large(sequence)); stored || !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("report %d on a full disk: stored %v, %w", sequence, stored, err)
		}
	}
	// Restarted on the full disk, it reads, and takes reports as soon as there is room.
	if err := s.stop(); err != nil {
		return err
	}
	if s, err = run(Config{Dir: dir}); err != nil {
		return err
	}
	if stored, err := s.Append(ctx, "a", large(sequence)); stored || err == nil {
		return fmt.Errorf("report %d on a full disk after a restart: stored %v, %w", sequence, stored, err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	if stored, err := s.Append(ctx, "a", large(sequence)); !stored || err != nil {
		return fmt.Errorf("report %d when there is room: stored %v, %w", sequence, stored, err)
	}
	next := uint64(1)
	for e, err := range s.Scan(ctx, time.Time{}, time.Time{}, nil) {
		if err != nil || e.Report.GetSequence() != next {
			return fmt.Errorf("report %d comes where %d should: %w", e.Report.GetSequence(), next, err)
		}
		next++
	}
	if next != sequence+1 {
		return fmt.Errorf("%d reports come, not %d", next-1, sequence)
	}
	fmt.Printf("%+v\n", s.Stats())
	return s.stop()
}
