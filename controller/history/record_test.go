package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	synmeshv1 "github.com/synmesh/synmesh/proto/synmesh/v1"
)

func TestEveryBitOfARecordIsChecked(t *testing.T) {
	key := binary.BigEndian.AppendUint64(nil, 1795201971369785123)
	value := newRecord("fra-1", encoded(t, report(3, 4, 2)))
	sealRecord(key, value)
	r, ok := decodeRecord(key, value)
	if !ok || r.at != 1795201971369785123 || string(r.agent) != "fra-1" {
		t.Fatalf("%+v, %v", r, ok)
	}
	row := append(bytes.Clone(key), value...)
	for bit := range 8 * len(row) {
		row[bit/8] ^= 1 << (bit % 8)
		if _, ok := decodeRecord(row[:keySize], row[keySize:]); ok {
			t.Errorf("bit %d is not checked", bit)
		}
		row[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	key := binary.BigEndian.AppendUint64(nil, 1795201971369785123)
	for _, agent := range []string{"a", "fra-1", strings.Repeat("n", maxAgent)} {
		value := newRecord(agent, encoded(f, report(3, 4, 2)))
		sealRecord(key, value)
		f.Add(key, value)
	}
	f.Add([]byte{}, []byte{})
	f.Add(key, []byte{0, 0, 0, 0, 255})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if _, ok := decodeRecord(key, value); !ok && len(key) == keySize && len(value) > checksumSize {
			value = bytes.Clone(value)
			sealRecord(key, value) // so that the fuzzer gets behind the checksum
		}
		r, ok := decodeRecord(key, value)
		if !ok {
			return
		}
		report := &synmeshv1.Report{}
		if proto.Unmarshal(r.report, report) != nil {
			return
		}
		again := newRecord(string(r.agent), encoded(t, report))
		sealRecord(key, again)
		r2, ok := decodeRecord(key, again)
		report2 := &synmeshv1.Report{}
		if !ok || r2.at != r.at || !bytes.Equal(r2.agent, r.agent) || proto.Unmarshal(r2.report, report2) != nil {
			t.Fatalf("%+v is not %+v", r2, r)
		}
		if !proto.Equal(report, report2) {
			t.Fatalf("%v is not %v", report2, report)
		}
	})
}

func FuzzDecodeMark(f *testing.F) {
	key := stream{"fra-1", 7}.key()
	f.Add(key, mark{9, 1795201971369785123}.encode(key))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		s, m, ok := decodeMark(key, value)
		if ok && (!bytes.Equal(s.key(), key) || !bytes.Equal(m.encode(key), value)) {
			t.Fatalf("%+v %+v", s, m)
		}
	})
}

// Whatever a file holds, reading it ends, and within the file's bounds.
func FuzzTree(f *testing.F) {
	const pageSize = 1024
	path := filepath.Join(f.TempDir(), "x.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: pageSize})
	if err != nil {
		f.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(rowsBucket)
		for i := range uint64(60) {
			err = errors.Join(err, b.Put(binary.BigEndian.AppendUint64(nil, i), make([]byte, i*5)))
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		f.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	good, err := readTree(bytes.NewReader(data))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:good.pages*pageSize], good.root, uint64(30))
	circle := make([]byte, 4*pageSize) // a branch of which every child is itself
	binary.NativeEndian.PutUint16(circle[2*pageSize+8:], branchPage)
	binary.NativeEndian.PutUint16(circle[2*pageSize+10:], 60)
	for i := range 60 {
		binary.NativeEndian.PutUint64(circle[2*pageSize+headerSize*(1+i)+8:], 2)
	}
	f.Add(circle, uint64(2), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, root, from uint64) {
		_, _ = readTree(bytes.NewReader(data))
		tree := &tree{r: bytes.NewReader(data), pageSize: pageSize, root: root, pages: uint64(len(data) / pageSize)}
		b, err := tree.bucket(rowsBucket)
		if err != nil {
			return
		}
		n := 0
		for range tree.entries(b, binary.BigEndian.AppendUint64(nil, from)) {
			n++
		}
		if limit := len(data) / headerSize * (2 + len(data)/pageSize); n > limit {
			t.Fatalf("%d entries in %d bytes", n, len(data))
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add("")
	f.Add(Cursor("12345678").String())
	f.Add("00112233445566AA")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseCursor(s); err == nil && c.String() != s {
			t.Fatalf("%q became %q", s, c)
		}
	})
}

func TestFileNames(t *testing.T) {
	for _, n := range []name{{0, 1}, {20777, 1}, {20777, 2}, {20777, 13}} {
		if got, ok := parseName(n.String()); !ok || got != n {
			t.Errorf("%v becomes %v", n, got)
		}
	}
	for _, s := range []string{
		"", "intake-.db", "intake-20261120.db.tmp", "intake-20261120-0.db", "intake-20261120-1.db",
		"intake-20261120-02.db", "intake-20261120-+2.db", "intake-20261320.db", "archive-20261120.db",
	} {
		if n, ok := parseName(s); ok {
			t.Errorf("%q is taken for %v", s, n)
		}
	}
	if got := (name{dayOf(nanoseconds(time.Date(2026, 11, 20, 23, 59, 59, 999, time.UTC))), 1}).String(); got != "intake-20261120.db" {
		t.Error(got)
	}
}
