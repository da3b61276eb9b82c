package backups

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/controller/backup"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept is a history on disk that is used.
type kept struct {
	*history.Store
	dir string
}

func keep(t *testing.T, dir string) kept {
	t.Helper()
	s, err := history.Open(history.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ran, s.Close()); err != nil {
			t.Error(err)
		}
	})
	return kept{s, dir}
}

// report stores the n-th report, of about 200 kB: a few are more than all buffers on the way have room for.
func (k kept) report(t *testing.T, n uint64) {
	t.Helper()
	rs := apitest.Results("runs/a", "db.fra:5432", time.Unix(1_790_000_000, 0), 20_000)
	random := rand.New(rand.NewPCG(n, 0))
	for i := range rs {
		rs[i].RTT, rs[i].Lateness = time.Duration(random.Int64N(1e12)), time.Duration(random.Int64N(1e9))
	}
	if stored, err := k.Append(t.Context(), "fra-1", apitest.Report(5, n, rs)); !stored || err != nil {
		t.Fatalf("report %d: stored %v, %v", n, stored, err)
	}
}

// sequences are those of the reports stored.
func (k kept) sequences(t *testing.T) (found []uint64) {
	t.Helper()
	for e, err := range k.Scan(t.Context(), time.Time{}, time.Time{}, nil) {
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, e.Report.GetSequence())
	}
	return found
}

// left returns what there is in the history's folder of backups that have ended.
func (k kept) left(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(k.dir, "backup-*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// take is a Taker.
func (k kept) take(ctx context.Context, actor identity.Identity, w io.Writer) error {
	b, err := backup.New(w, actor.String(), time.Now())
	if err != nil {
		return err
	}
	err = k.Backup(ctx, func(name string, size int64, content io.Reader) error {
		return b.Add("history/"+name, size, content)
	})
	if err != nil {
		return err
	}
	return b.Close()
}

// serve serves backups, and returns a client for an admin.
func serve(t *testing.T, take Taker) synmeshv1.BackupServiceClient {
	t.Helper()
	m := apitest.NewMembers(t)
	as := m.Serve(func(r grpc.ServiceRegistrar) { Register(r, take) })
	return synmeshv1.NewBackupServiceClient(as(m.NewUser("ada", identity.Admin, 0)))
}

type stream = grpc.ServerStreamingClient[synmeshv1.BackupResponse]

func begin(t *testing.T, ctx context.Context, c synmeshv1.BackupServiceClient) stream {
	t.Helper()
	st, err := c.Backup(ctx, &synmeshv1.BackupRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// rest reads a backup to its end.
func rest(st stream) (data []byte, err error) {
	for {
		part, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err
		}
		if n := len(part.GetData()); n == 0 || n > partSize {
			return data, fmt.Errorf("a part has %d bytes", n)
		}
		data = append(data, part.GetData()...)
	}
}

func wantStatus(t *testing.T, err error, code codes.Code, message string) {
	t.Helper()
	if s := status.Convert(err); s.Code() != code || s.Message() != message {
		t.Errorf("got %v, want %v with %q", err, code, message)
	}
}

func numbers(from, to uint64) (ns []uint64) {
	for n := from; n <= to; n++ {
		ns = append(ns, n)
	}
	return ns
}

func TestWhatArrivesIsAHistory(t *testing.T) {
	k := keep(t, t.TempDir())
	for _, n := range numbers(1, 5) {
		k.report(t, n)
	}
	data, err := rest(begin(t, t.Context(), serve(t, k.take)))
	if err != nil {
		t.Fatal(err)
	}
	k.report(t, 6)
	dir := filepath.Join(t.TempDir(), "data")
	about, err := backup.Restore(t.Context(), bytes.NewReader(data), dir)
	if err != nil || about.Controller != "user/admin/ada" {
		t.Fatalf("the backup is of %+v, %v", about, err)
	}
	again := keep(t, filepath.Join(dir, "history"))
	if got := again.sequences(t); !slices.Equal(got, numbers(1, 5)) {
		t.Errorf("restored are the reports %v", got)
	}
	again.report(t, 6)
}

// Who does not read holds up those who want a backup, and nobody who has something to store.
func TestAReaderThatStalls(t *testing.T) {
	k := keep(t, t.TempDir())
	for _, n := range numbers(1, 10) {
		k.report(t, n)
	}
	taken := make(chan error, 1)
	client := serve(t, func(ctx context.Context, actor identity.Identity, w io.Writer) error {
		err := k.take(ctx, actor, w)
		taken <- err
		return err
	})
	st := begin(t, t.Context(), client)
	part, err := st.Recv()
	if err != nil {
		t.Fatal(err)
	}
	data := slices.Clone(part.GetData())
	for _, n := range numbers(11, 15) {
		k.report(t, n)
	}
	_, err = rest(begin(t, t.Context(), client))
	wantStatus(t, err, codes.ResourceExhausted, "another backup is being taken; try again when it is done")
	select {
	case err := <-taken:
		t.Fatalf("the backup has been sent to who does not read: %v", err)
	default:
	}
	more, err := rest(st)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Verify(t.Context(), bytes.NewReader(append(data, more...))); err != nil {
		t.Error(err)
	}
	if err := <-taken; err != nil {
		t.Error(err)
	}
}

func TestWhoGoesAwayInMidBackupLeavesNothing(t *testing.T) {
	k := keep(t, t.TempDir())
	for _, n := range numbers(1, 10) {
		k.report(t, n)
	}
	taken := make(chan error, 2)
	client := serve(t, func(ctx context.Context, actor identity.Identity, w io.Writer) error {
		err := k.take(ctx, actor, w)
		taken <- err
		return err
	})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := begin(t, ctx, client).Recv(); err != nil {
		t.Fatal(err)
	}
	if len(k.left(t)) != 1 {
		t.Fatalf("the backup has %v of the history", k.left(t))
	}
	cancel()
	if err := <-taken; err == nil {
		t.Error("it was taken to its end")
	}
	if left := k.left(t); len(left) > 0 {
		t.Errorf("there is %v", left)
	}
	ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	data, err := rest(begin(t, ctx, client))
	for status.Code(err) == codes.ResourceExhausted { // the call before ends a moment after its taker
		data, err = rest(begin(t, ctx, client))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := backup.Verify(t.Context(), bytes.NewReader(data)); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestABackupThatIsNoneSaysWhy(t *testing.T) {
	full := errors.New("write history/backup-1: no space left on device")
	for _, tt := range []struct {
		name    string
		err     error
		code    codes.Code
		message string
	}{
		{"the disk is full", full, codes.Unavailable, "the backup is not complete, and of no use: " + full.Error()},
		{"there is nothing on the disk", ErrElsewhere, codes.FailedPrecondition,
			"there is no backup: the history is not kept in the data folder; back it up where it is kept"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := serve(t, func(_ context.Context, _ identity.Identity, w io.Writer) error {
				_, err := w.Write(make([]byte, 2*partSize+1))
				return errors.Join(err, tt.err)
			})
			for range 2 { // and the next one is told the same
				data, err := rest(begin(t, t.Context(), client))
				wantStatus(t, err, tt.code, tt.message)
				if len(data) > 2*partSize+1 {
					t.Errorf("it has %d bytes", len(data))
				}
			}
		})
	}
}

func TestNobodyIsGivenABackupInPlaintext(t *testing.T) {
	conn := apitest.Dial(t, func(r grpc.ServiceRegistrar) {
		Register(r, func(context.Context, identity.Identity, io.Writer) error { return os.ErrPermission })
	})
	_, err := rest(begin(t, t.Context(), synmeshv1.NewBackupServiceClient(conn)))
	if status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
}
