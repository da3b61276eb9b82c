package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

// Config says where an authority has its keys.
type Config struct {
	// Dir is the folder of the CA, and of nothing else; it is made if it is not there.
	Dir    string
	Logger *slog.Logger // nil discards

	now func() time.Time // nil: time.Now
}

// Authority is a CA. Its methods may be called concurrently.
type Authority struct {
	cfg      Config
	root     *x509.Certificate
	announce ed25519.PrivateKey

	mu      sync.Mutex
	signer  signer
	attempt time.Time // when the intermediate was last found to be in need of renewal
}

// signer is a certificate that signs others, and its key.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

const (
	rootFile         = "root.crt"
	rootKeyFile      = "root.key"
	intermediateFile = "intermediate.pem"
	announceFile     = "announce.key"
	readmeFile       = "README"
)

// Open opens the CA in the folder, or makes one there.
func Open(cfg Config) (*Authority, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	a := &Authority{cfg: cfg}
	if err := a.open(); err != nil {
		return nil, fmt.Errorf("authority: %w", err)
	}
	a.maintain()
	return a, nil
}

func (a *Authority) open() error {
	entries, err := os.ReadDir(a.cfg.Dir)
	if err == nil && len(entries) == 0 {
		// Somebody made the folder for us; ours takes its name.
		err = errors.Join(fs.ErrNotExist, os.Remove(a.cfg.Dir))
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(a.cfg.Dir, a.cfg.now()); err != nil {
			return fmt.Errorf("make a CA: %w", err)
		}
		a.cfg.Logger.Warn("a CA was made for the fleet; move the root's key to a safe place, it is needed about twice a year",
			"key", a.path(rootKeyFile))
	}
	if err := identity.MakeFolder(a.cfg.Dir); err != nil {
		return err
	}
	for _, name := range []string{intermediateFile, announceFile, rootKeyFile} {
		// A backup that was restored may have other rights.
		if err := identity.CheckPrivate(a.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return a.read()
}

// read reads all but the root's key, and checks that it belongs together.
func (a *Authority) read() error {
	text, err := os.ReadFile(a.path(rootFile))
	if err != nil {
		return fmt.Errorf("%w; a CA that is incomplete is not made anew, for all agents would have to enrol again: restore the folder", err)
	}
	roots, err := identity.DecodeCertificates(text)
	if err != nil {
		return fmt.Errorf("%s: %w", a.path(rootFile), err)
	}
	a.root = roots[0]
	if text, err = os.ReadFile(a.path(intermediateFile)); err != nil {
		return err
	}
	if a.signer, err = decodeSigner(text); err != nil {
		return fmt.Errorf("%s: %w", a.path(intermediateFile), err)
	}
	if err := a.signer.cert.CheckSignatureFrom(a.root); err != nil {
		return fmt.Errorf("%s is not signed by %s: %w", a.path(intermediateFile), rootFile, err)
	}
	if text, err = os.ReadFile(a.path(announceFile)); err != nil {
		return err
	}
	if a.announce, err = decodeAnnounce(text); err != nil {
		return fmt.Errorf("%s: %w", a.path(announceFile), err)
	}
	return nil
}

func (a *Authority) path(name string) string { return filepath.Join(a.cfg.Dir, name) }

// Fleet returns the name of the fleet.
func (a *Authority) Fleet() string { return identity.FleetOf(a.RootKey()) }

// RootKey returns the hash of the root's key, which tokens pin.
func (a *Authority) RootKey() identity.KeyHash { return identity.HashOf(a.root) }

// Roots returns what everybody in the fleet checks certificates against.
func (a *Authority) Roots() []*x509.Certificate { return []*x509.Certificate{a.root} }

// Announcer signs announcements for the gossip; it is an Ed25519 key. Everybody
// in the fleet gets its public part.
func (a *Authority) Announcer() crypto.Signer { return a.announce }

func encodeSigner(s signer) ([]byte, error) {
	key, err := identity.EncodeKey(s.key)
	if err != nil {
		return nil, err
	}
	return append(identity.EncodeCertificates(s.cert), key...), nil
}

func decodeSigner(text []byte) (signer, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return signer{}, errors.New("it is not a certificate and a key in PEM")
	}
	certs, err := identity.DecodeCertificates(pem.EncodeToMemory(block))
	if err != nil {
		return signer{}, err
	}
	key, err := identity.DecodeKey(rest)
	if err != nil {
		return signer{}, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return signer{}, errors.New("certificate and key do not belong together")
	}
	return signer{certs[0], key}, nil
}

func encodeAnnounce(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func decodeAnnounce(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is not a key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	announce, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("it is not an Ed25519 key")
	}
	return announce, nil
}
