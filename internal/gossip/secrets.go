package gossip

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
)

// SecretsFile is the name of Secrets among the files that members of the fleet
// are handed.
const SecretsFile = "gossip.json"

// maxSecrets is how long encoded secrets may be, in bytes.
const maxSecrets = 64 << 10

// Secrets are what it takes to take part, besides an announcement.
type Secrets struct {
	Keys    Keys                `json:"keys"`
	Trusted []ed25519.PublicKey `json:"trusted"`
}

// Encode writes the secrets as JSON.
func (s Secrets) Encode() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("gossip secrets: %w", err)
	}
	return text, nil
}

// DecodeSecrets reads what Encode writes.
func DecodeSecrets(text []byte) (Secrets, error) {
	if len(text) > maxSecrets {
		return Secrets{}, fmt.Errorf("gossip secrets: they have %d bytes; %d are allowed", len(text), maxSecrets)
	}
	var s Secrets
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return Secrets{}, fmt.Errorf("gossip secrets: %w", err)
	}
	if d.More() {
		return Secrets{}, errors.New("gossip secrets: something follows their end")
	}
	return s, s.check()
}

func (s Secrets) check() error {
	if err := s.Keys.check(); err != nil {
		return err
	}
	_, err := newTrust("", s.Trusted)
	return err
}
