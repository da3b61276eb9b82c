package identity

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// pki writes the files of an own PKI.
type pki struct {
	*ca
	cfg FilesConfig
}

func newPKI(t *testing.T) *pki {
	dir := t.TempDir()
	return &pki{newCA(t), FilesConfig{
		Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Roots: filepath.Join(dir, "ca.crt"),
		interval: time.Millisecond,
	}}
}

func (p *pki) write(id Identity) (leaf *x509.Certificate) {
	key := newKey(p.t)
	chain := p.issue(id, key, nil)
	text, err := EncodeKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for path, content := range map[string][]byte{
		p.cfg.Key: text, p.cfg.Certificate: EncodeCertificates(chain...), p.cfg.Roots: EncodeCertificates(p.root),
	} {
		if err := WriteFile(path, content); err != nil {
			p.t.Fatal(err)
		}
	}
	return chain[0]
}

func TestFilesOfAnOwnPKIAreFollowed(t *testing.T) {
	p := newPKI(t)
	id := p.id(Controller, "main")
	first := p.write(id)
	f, err := OpenFiles(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		cancel()
		want(t, <-ended, nil)
	}()
	if c, err := f.Current(); err != nil || !c.Leaf().Equal(first) {
		t.Fatal(err)
	}
	changed := f.Changed()
	second := p.write(id)
	<-changed
	if c, _ := f.Current(); !c.Leaf().Equal(second) {
		t.Error("what was written was not taken")
	}
}

func TestFilesThatDoNotFitLeaveWhatWas(t *testing.T) {
	p := newPKI(t)
	first := p.write(p.id(Controller, "main"))
	f, err := OpenFiles(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(p.cfg.Key)
	if err != nil {
		t.Fatal(err)
	}
	p.write(p.id(Controller, "main"))
	if err := WriteFile(p.cfg.Key, before); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(){
		"a key of another time": func() {},
		"another name":          func() { p.write(p.id(Controller, "other")) },
		"half a certificate":    func() { _ = os.Truncate(p.cfg.Certificate, 100) },
		"a key for all": func() {
			p.write(p.id(Controller, "main"))
			_ = os.Chmod(p.cfg.Key, 0o644)
		},
		"no roots": func() { _ = os.Remove(p.cfg.Roots) },
	} {
		change()
		if taken, err := f.update(); err == nil || taken {
			t.Errorf("%s: taken", name)
		}
		if c, err := f.Current(); err != nil || !c.Leaf().Equal(first) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
