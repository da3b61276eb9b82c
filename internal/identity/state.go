package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
)

// stateFormat names the form that State.Encode writes.
const stateFormat = "synmesh identity 1"

// maxState is how long an encoded state may be, in bytes; one with two roots and
// some gossip keys has 4,000.
const maxState = 1 << 20

// State is all that makes somebody who they are, as it lies on their disk.
type State struct {
	// Generation counts an agent's certificates since it was enrolled, from 1.
	Generation uint64
	// Key and Chain (leaf first) are absent before the enrolment.
	Key   *ecdsa.PrivateKey
	Chain []*x509.Certificate
	Roots []*x509.Certificate
	// Files are handed to every member of the fleet, such as keys of the gossip.
	// What they mean is the business of those who read them.
	Files map[string][]byte
	// Pending is the key that a certificate has been asked for. It was stored
	// before: if the answer is lost, the same is asked again.
	Pending *ecdsa.PrivateKey
}

// Issued is the answer to an enrolment or a renewal.
type Issued struct {
	Generation uint64
	Chain      []*x509.Certificate
	Roots      []*x509.Certificate
	Files      map[string][]byte
}

// encodedState is a State as JSON.
type encodedState struct {
	Format       string            `json:"format"`
	Generation   uint64            `json:"generation,omitempty"`
	Key          string            `json:"key,omitempty"`
	Certificates string            `json:"certificates,omitempty"`
	Roots        string            `json:"roots,omitempty"`
	Files        map[string][]byte `json:"files,omitempty"`
	Pending      string            `json:"pending_key,omitempty"`
}

// Enrolled tells whether there is a certificate.
func (s *State) Enrolled() bool { return s.Key != nil && len(s.Chain) > 0 }

// Credentials returns what handshakes need; ErrNotEnrolled if there is no certificate.
func (s *State) Credentials() (*Credentials, error) {
	if !s.Enrolled() {
		return nil, ErrNotEnrolled
	}
	return NewCredentials(s.Key, s.Chain, s.Roots)
}

// Accept puts what was issued in the place of what was. It must be for the
// pending key.
func (s *State) Accept(i Issued) error {
	if s.Pending == nil {
		return errors.New("a certificate came that was not asked for")
	}
	next := State{Generation: i.Generation, Key: s.Pending, Chain: i.Chain, Roots: i.Roots, Files: maps.Clone(i.Files)}
	if _, err := next.Credentials(); err != nil {
		return fmt.Errorf("the certificate that came cannot be used: %w", err)
	}
	*s = next
	return nil
}

// Encode writes the state as JSON. It holds private keys.
func (s *State) Encode() ([]byte, error) {
	e := encodedState{
		Format: stateFormat, Generation: s.Generation, Files: s.Files,
		Certificates: string(EncodeCertificates(s.Chain...)), Roots: string(EncodeCertificates(s.Roots...)),
	}
	for _, k := range []struct {
		key  *ecdsa.PrivateKey
		text *string
	}{{s.Key, &e.Key}, {s.Pending, &e.Pending}} {
		if k.key == nil {
			continue
		}
		text, err := EncodeKey(k.key)
		if err != nil {
			return nil, err
		}
		*k.text = string(text)
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return append(text, '\n'), nil
}

// DecodeState reads what Encode writes. The parts need not fit together yet:
// Credentials says so.
func DecodeState(text []byte) (*State, error) {
	s, err := decodeState(text)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return s, nil
}

func decodeState(text []byte) (*State, error) {
	if len(text) > maxState {
		return nil, fmt.Errorf("it has %d bytes; %d are allowed", len(text), maxState)
	}
	var e encodedState
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows its end")
	}
	if e.Format != stateFormat {
		return nil, fmt.Errorf("its format is %.80q; this version reads %q only", e.Format, stateFormat)
	}
	s := &State{Generation: e.Generation, Files: e.Files}
	var err error
	if e.Key != "" {
		if s.Key, err = DecodeKey([]byte(e.Key)); err != nil {
			return nil, err
		}
	}
	if e.Pending != "" {
		if s.Pending, err = DecodeKey([]byte(e.Pending)); err != nil {
			return nil, fmt.Errorf("pending: %w", err)
		}
	}
	if e.Certificates != "" {
		if s.Chain, err = DecodeCertificates([]byte(e.Certificates)); err != nil {
			return nil, err
		}
	}
	if e.Roots != "" {
		if s.Roots, err = DecodeCertificates([]byte(e.Roots)); err != nil {
			return nil, fmt.Errorf("roots: %w", err)
		}
	}
	return s, nil
}
