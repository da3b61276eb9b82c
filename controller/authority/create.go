package authority

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

const (
	day              = 24 * time.Hour
	rootLife         = 10 * 365 * day
	intermediateLife = 365 * day
	// backdated is how far the clocks of the fleet may be behind the controller's.
	backdated = 10 * time.Minute
)

const readme = `This folder is the CA of a Synmesh fleet. Back it up; who can read it can be
anybody in the fleet.

root.key is needed only to renew intermediate.pem, about twice a year. Move it to
a place that is not online, and nothing else changes. The controller's log says
in time when it is wanted: put it back here then, and start the controller
again, or wait an hour; then move it away again. root.crt stays here.
`

// create makes a CA aside, and gives the folder its name when all of it is on the disk.
func create(dir string, now time.Time) error {
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	aside := dir + ".tmp"
	if err := os.RemoveAll(aside); err != nil { // a crash has left it
		return err
	}
	if err := os.Mkdir(aside, 0o700); err != nil {
		return err
	}
	err := fill(aside, now)
	if err == nil {
		err = os.Rename(aside, dir)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(aside))
	}
	return identity.SyncFolder(filepath.Dir(dir))
}

func fill(dir string, now time.Time) error {
	key, err := identity.NewKey()
	if err != nil {
		return err
	}
	root, err := newRoot(key, now)
	if err != nil {
		return err
	}
	online, err := newIntermediate(signer{root, key}, now)
	if err != nil {
		return err
	}
	_, announce, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	rootKey, err := identity.EncodeKey(key)
	if err != nil {
		return err
	}
	intermediate, err := encodeSigner(online)
	if err != nil {
		return err
	}
	announceKey, err := encodeAnnounce(announce)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		rootFile: identity.EncodeCertificates(root), rootKeyFile: rootKey,
		intermediateFile: intermediate, announceFile: announceKey, readmeFile: []byte(readme),
	} {
		if err := identity.WriteFile(filepath.Join(dir, name), content); err != nil {
			return err
		}
	}
	return nil
}

func newRoot(key *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, error) {
	hash, err := identity.HashKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	template := caTemplate("Synmesh root of "+identity.FleetOf(hash), now, rootLife)
	template.MaxPathLen = 1
	return sign(template, template, &key.PublicKey, key)
}

func newIntermediate(root signer, now time.Time) (signer, error) {
	key, err := identity.NewKey()
	if err != nil {
		return signer{}, err
	}
	template := caTemplate("Synmesh intermediate of "+identity.FleetOf(identity.HashOf(root.cert)), now, intermediateLife)
	template.MaxPathLenZero = true
	template.NotAfter = earlier(template.NotAfter, root.cert.NotAfter)
	cert, err := sign(template, root.cert, &key.PublicKey, root.key)
	return signer{cert, key}, err
}

func caTemplate(name string, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdated), NotAfter: now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true,
	}
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial)
	serial[0] = serial[0]&0x7f | 0x40 // positive, and always as long
	template.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
