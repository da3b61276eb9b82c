package identity

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAFolderGoesFromNothingToRenewal(t *testing.T) {
	c := newCA(t)
	dir := filepath.Join(t.TempDir(), "state")
	f := openTest(t, dir)
	_, err := f.Current()
	want(t, err, ErrNotEnrolled)
	id := c.id(Agent, "fra-1")
	for generation := range uint64(3) {
		pending, err := f.Pending()
		if err != nil {
			t.Fatal(err)
		}
		// A process that dies asks for the same again.
		f = reopen(t, f, dir)
		again, err := f.Pending()
		if err != nil || !again.Equal(pending) {
			t.Fatalf("another key is pending: %v", err)
		}
		changed := f.Changed()
		issued := Issued{generation + 1, c.issue(id, pending, nil), []*x509.Certificate{c.root}, map[string][]byte{"gossip": {1, 2, 3}}}
		want(t, f.Accept(issued), nil)
		<-changed
		f = reopen(t, f, dir)
		now, err := f.Current()
		if err != nil || now.Identity != id || HashOf(now.Leaf()) != HashOf(issued.Chain[0]) {
			t.Fatalf("%+v, %v", now, err)
		}
		if s := f.State(); s.Generation != generation+1 || !bytes.Equal(s.Files["gossip"], []byte{1, 2, 3}) || s.Pending != nil {
			t.Errorf("%+v", s)
		}
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, stateFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func openTest(t *testing.T, dir string) *Folder {
	t.Helper()
	f, err := OpenFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() }) // it may be closed already
	return f
}

func reopen(t *testing.T, f *Folder, dir string) *Folder {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return openTest(t, dir)
}

func TestAFolderTakesOnlyWhatFits(t *testing.T) {
	c, other := newCA(t), newCA(t)
	f := openTest(t, filepath.Join(t.TempDir(), "state"))
	id := c.id(Agent, "fra-1")
	roots := []*x509.Certificate{c.root}
	if err := f.Accept(Issued{Chain: c.issue(id, newKey(t), nil), Roots: roots}); err == nil {
		t.Error("a certificate that nobody asked for was taken")
	}
	key, err := f.Pending()
	if err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]Issued{
		"for another key":   {Chain: c.issue(id, newKey(t), nil), Roots: roots},
		"from another CA":   {Chain: other.issue(id, key, nil), Roots: roots},
		"without a chain":   {Roots: roots},
		"without roots":     {Chain: c.issue(id, key, nil)},
		"for nobody":        {Chain: c.issue(id, key, func(c *x509.Certificate) { c.URIs = nil }), Roots: roots},
		"with a leaf as CA": {Chain: c.issue(id, key, nil), Roots: c.issue(id, key, nil)[:1]},
	} {
		if err := f.Accept(i); err == nil {
			t.Errorf("a certificate %s was taken", name)
		}
	}
	want(t, f.Accept(Issued{Chain: c.issue(id, key, expired), Roots: roots}), nil) // it can still be renewed
}

func TestAFolderIsForOneProcessAndOneOwner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	f := openTest(t, dir)
	_, err := OpenFolder(dir)
	want(t, err, ErrInUse)
	if _, err := f.Pending(); err != nil {
		t.Fatal(err)
	}
	want(t, f.Close(), nil)
	path := filepath.Join(dir, stateFile)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "chmod 0600 it") {
		t.Errorf("a key that all may read: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "chmod 0700 it") {
		t.Errorf("a folder that all may write to: %v", err)
	}
}

func TestRenewalIsDueAboutHalfWay(t *testing.T) {
	begin := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	cert := &x509.Certificate{NotBefore: begin, NotAfter: begin.Add(24 * time.Hour)}
	seen := map[time.Time]bool{}
	for range 1000 {
		at := RenewalOf(cert)
		if d := at.Sub(begin); d < 24*time.Hour*4/10 || d > 24*time.Hour*6/10 {
			t.Fatalf("after %v", d)
		}
		seen[at] = true
	}
	if len(seen) < 900 {
		t.Errorf("%d of 1000 times differ", len(seen))
	}
	RenewalOf(&x509.Certificate{NotBefore: begin, NotAfter: begin}) // does not panic
}

func FuzzDecodeState(f *testing.F) {
	c := newCA(f)
	key := newKey(f)
	s := State{
		Generation: 3, Key: key, Chain: c.issue(c.id(Agent, "a"), key, nil), Roots: []*x509.Certificate{c.root},
		Files: map[string][]byte{"gossip": {1}}, Pending: newKey(f),
	}
	text, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"format":"synmesh identity 1"}`))
	f.Add([]byte(`{"format":"synmesh identity 1","key":"x"} {}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := DecodeState(text)
		if err != nil {
			return
		}
		once, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := DecodeState(once)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(once, twice) {
			t.Errorf("%v\n%s\n%s", err, once, twice)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	request, err := NewRequest(newKey(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(request)
	f.Add(request[:len(request)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, der []byte) {
		key, err := ParseRequest(der)
		if err != nil {
			return
		}
		if _, err := HashKey(key); err != nil {
			t.Error(err)
		}
	})
}

func TestARequestProvesTheKey(t *testing.T) {
	key := newKey(t)
	request, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseRequest(request); err != nil || !got.Equal(&key.PublicKey) {
		t.Error(err)
	}
	request[len(request)-1] ^= 1
	if _, err := ParseRequest(request); err == nil {
		t.Error("a signature that does not hold was taken")
	}
	if _, err := ParseRequest(make([]byte, maxRequest+1)); err == nil {
		t.Error("a request of any length was taken")
	}
}
