package identity

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// filesInterval is how often watched files are looked at.
const filesInterval = 2 * time.Second

// FilesConfig names the files of an own PKI, all in PEM. Whoever renews them
// may write one after the other: what does not fit together is not taken yet.
type FilesConfig struct {
	Certificate string // the chain, leaf first
	Key         string
	Roots       string
	Logger      *slog.Logger // nil discards

	interval time.Duration // 0: filesInterval
}

// Files are the certificate files of an own PKI, and a Source. Call OpenFiles,
// then Run, which follows changes.
type Files struct {
	cfg FilesConfig

	mu          sync.Mutex
	credentials *Credentials
	changed     chan struct{}

	// Run's own.
	read   [3][]byte
	failed string
}

// OpenFiles reads the files, which must fit together.
func OpenFiles(cfg FilesConfig) (*Files, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.interval == 0 {
		cfg.interval = filesInterval
	}
	f := &Files{cfg: cfg, changed: make(chan struct{})}
	if _, err := f.update(); err != nil {
		return nil, fmt.Errorf("certificate files: %w", err)
	}
	return f, nil
}

// Current implements Source.
func (f *Files) Current() (*Credentials, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.credentials, nil
}

// Changed returns a channel that is closed when other files have been taken.
func (f *Files) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// Run follows the files until ctx ends. While they cannot be used, what was read
// before stays current, and the log says so once.
func (f *Files) Run(ctx context.Context) error {
	t := time.NewTicker(f.cfg.interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		taken, err := f.update()
		switch {
		case err != nil && err.Error() != f.failed:
			f.failed = err.Error()
			f.cfg.Logger.Warn("the certificate files cannot be used; going on with what they were", "reason", err)
		case err == nil && (taken || f.failed != ""):
			f.failed = ""
			f.cfg.Logger.Info("the certificate files were read again", "certificate", f.cfg.Certificate)
		}
	}
}

// update takes the files if they are others than before, and fit together.
func (f *Files) update() (taken bool, err error) {
	var read [3][]byte
	for i, path := range []string{f.cfg.Certificate, f.cfg.Key, f.cfg.Roots} {
		if read[i], err = os.ReadFile(path); err != nil {
			return false, err
		}
	}
	if bytes.Equal(read[0], f.read[0]) && bytes.Equal(read[1], f.read[1]) && bytes.Equal(read[2], f.read[2]) {
		return false, nil
	}
	c, err := f.load(read)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.credentials != nil && c.Identity != f.credentials.Identity {
		return false, fmt.Errorf("%s: it is for %v, and we are %v; start again to be somebody else",
			f.cfg.Certificate, c.Identity, f.credentials.Identity)
	}
	f.read, f.credentials = read, c
	close(f.changed)
	f.changed = make(chan struct{})
	return true, nil
}

func (f *Files) load(read [3][]byte) (*Credentials, error) {
	// A group of its own is a usual way to hand a service its key.
	if err := checkPrivate(f.cfg.Key, 0o027); err != nil {
		return nil, err
	}
	chain, err := DecodeCertificates(read[0])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.cfg.Certificate, err)
	}
	// It knows all the forms that other PKIs write keys in.
	pair, err := tls.X509KeyPair(read[0], read[1])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.cfg.Key, err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a key of type %T cannot sign", f.cfg.Key, pair.PrivateKey)
	}
	roots, err := DecodeCertificates(read[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.cfg.Roots, err)
	}
	c, err := NewCredentials(key, chain, roots)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.cfg.Certificate, err)
	}
	return c, nil
}
