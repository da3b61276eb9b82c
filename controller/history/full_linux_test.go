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
	children["fill archive"] = fillArchive
}

func TestADiskFullAcknowledgesNothing(t *testing.T) { onOwnDisk(t, "fill") }

func TestADiskFullWhileArchivingLosesNothing(t *testing.T) { onOwnDisk(t, "fill archive") }

// onOwnDisk runs a child that mounts a small file system in a mount namespace of its own.
func onOwnDisk(t *testing.T, part string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], t.TempDir())
	cmd.Env = append(os.Environ(), childEnv+"="+part)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case os.Getuid() != 0 && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || strings.Contains(string(out), errNoMount.Error())):
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

// fillArchive has the disk full at every stage of archiving and merging. The intake stays as it
// is until there is room, what was half made is gone, and all is read meanwhile.
func fillArchive(dir string) error {
	if err := syscall.Mount("history", dir, "tmpfs", 0, "size=16m"); err != nil {
		return fmt.Errorf("%w: %v", errNoMount, err)
	}
	c, ctx := newClock("2026-11-20T12:00:00Z"), context.Background()
	s, err := run(Config{Dir: dir, now: c.now, noArchive: true, Rotation: 10 * time.Second})
	if err != nil {
		return err
	}
	const reports = 150 // in 15 files
	for i := range uint64(reports) {
		if _, err := s.Append(ctx, "a", report(1, i+1, 100)); err != nil {
			return err
		}
		c.add(time.Second)
	}
	ballast := filepath.Join(dir, "ballast")
	failed := 0
	for room := 4096; ; room += rounds(96<<10, 8<<10) {
		if err := leave(ballast, room); err != nil {
			return err
		}
		err := s.archiveAll(ctx)
		if err := readsAll(s, reports); err != nil {
			return fmt.Errorf("with %d bytes of room: %w", room, err)
		}
		if err == nil {
			break
		}
		failed++
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("with %d bytes of room: %w", room, err)
		}
		if left, err := filepath.Glob(filepath.Join(dir, "*"+tmpSuffix)); err != nil || len(left) > 0 {
			return fmt.Errorf("with %d bytes of room, there is %v: %w", room, left, err)
		}
	}
	if failed == 0 || s.finished() != nil {
		return fmt.Errorf("archiving has failed %d times, and %v is to be archived", failed, s.finished())
	}
	fmt.Printf("archiving has failed %d times\n%+v\n", failed, s.Stats())
	return s.stop()
}

// leave makes a file so large that so much of the disk is free.
func leave(ballast string, room int) error {
	if err := remove(ballast); err != nil {
		return err
	}
	f, err := os.Create(ballast)
	if err != nil {
		return err
	}
	defer f.Close()
	for b := make([]byte, 1<<20); err == nil; {
		_, err = f.Write(b)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return f.Truncate(max(0, info.Size()-int64(room)))
}

func readsAll(s *running, reports int) error {
	next := uint64(1)
	for e, err := range s.Scan(context.Background(), time.Time{}, time.Time{}, nil) {
		if err != nil || e.Report.GetSequence() != next {
			return fmt.Errorf("report %d comes where %d should: %w", e.Report.GetSequence(), next, err)
		}
		next++
	}
	answers, err := s.Query(context.Background(), Query{From: time.Unix(0, 0), To: time.Unix(0, 0).AddDate(1, 0, 0)})
	if err != nil || int(next)-1 != reports {
		return fmt.Errorf("%d reports come, not %d: %w", next-1, reports, err)
	}
	results := uint64(0)
	for _, a := range answers {
		results += a.Steps[0].Counts[1]
	}
	if results != uint64(reports)*100 {
		return fmt.Errorf("%d results are summed up, not %d", results, reports*100)
	}
	return nil
}
