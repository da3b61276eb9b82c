package gossip

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"
)

// Keys are what gossip is encrypted with, by AES-GCM: each has 16, 24 or 32
// bytes, and none comes twice. As text, and so in JSON, they are base64 with
// commas in between, the primary first. They print as no secret.
type Keys struct {
	// Primary encrypts what is said.
	Primary []byte
	// Others are understood too, but not used to speak. There may be none.
	Others [][]byte
}

// Rotate returns the three sets that take a fleet from these keys to a new
// primary: one that understands it too, one that speaks it, and one that knows
// nothing else. Every member must have one set before any gets the next.
func (k Keys) Rotate(to []byte) ([3]Keys, error) {
	if err := k.check(); err != nil {
		return [3]Keys{}, err
	}
	if bytes.Equal(k.Primary, to) {
		return [3]Keys{}, errors.New("gossip keys: the new key is the primary already")
	}
	others := slices.DeleteFunc(slices.Clone(k.Others), func(key []byte) bool { return bytes.Equal(key, to) })
	steps := [3]Keys{
		{k.Primary, append([][]byte{to}, others...)},
		{to, append([][]byte{k.Primary}, others...)},
		{to, nil},
	}
	return steps, steps[0].check()
}

func (k Keys) all() [][]byte { return append([][]byte{k.Primary}, k.Others...) }

func (k Keys) check() error {
	if len(k.Primary) == 0 {
		return errors.New("gossip keys: the primary is missing; it has 16, 24 or 32 bytes")
	}
	keys := k.all()
	for i, key := range keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return fmt.Errorf("gossip keys: key %d of %d has %d bytes; 16, 24 or 32 are allowed", i+1, len(keys), len(key))
		}
		if j := indexKey(keys, key); j < i {
			return fmt.Errorf("gossip keys: keys %d and %d are the same", j+1, i+1)
		}
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (k Keys) MarshalText() ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	texts := make([]string, 0, 1+len(k.Others))
	for _, key := range k.all() {
		texts = append(texts, base64.StdEncoding.EncodeToString(key))
	}
	return []byte(strings.Join(texts, ",")), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. It takes what MarshalText
// writes, and refuses all else.
func (k *Keys) UnmarshalText(text []byte) error {
	var keys [][]byte
	for i, part := range strings.Split(string(text), ",") {
		key, err := base64.StdEncoding.Strict().DecodeString(part)
		if err != nil || strings.ContainsAny(part, "\r\n") { // which the decoder passes over
			return fmt.Errorf("gossip keys: key %d is not base64", i+1)
		}
		keys = append(keys, key)
	}
	got := Keys{Primary: keys[0]}
	if len(keys) > 1 {
		got.Others = keys[1:]
	}
	if err := got.check(); err != nil {
		return err
	}
	*k = got
	return nil
}

// String implements fmt.Stringer, and tells no secret.
func (k Keys) String() string { return fmt.Sprintf("%d gossip keys", len(k.all())) }

// GoString implements fmt.GoStringer.
func (k Keys) GoString() string { return k.String() }

// LogValue implements slog.LogValuer.
func (k Keys) LogValue() slog.Value { return slog.StringValue(k.String()) }

// install makes the ring hold these keys: it adds, then uses, then removes, so
// that at no time it speaks what it does not understand.
func (k Keys) install(ring *memberlist.Keyring) error {
	for _, key := range k.all() {
		if err := ring.AddKey(bytes.Clone(key)); err != nil {
			return err
		}
	}
	if err := ring.UseKey(k.Primary); err != nil {
		return err
	}
	// Removing a key from the middle moves those behind it under the eyes of
	// memberlist, which reads them without a lock. So keys go from the end, and
	// one that was to stay is added again.
	for held := ring.GetKeys(); slices.ContainsFunc(held, k.lacks); held = ring.GetKeys() {
		if err := ring.RemoveKey(held[len(held)-1]); err != nil {
			return err
		}
	}
	for _, key := range k.Others {
		if err := ring.AddKey(bytes.Clone(key)); err != nil {
			return err
		}
	}
	return nil
}

func (k Keys) lacks(key []byte) bool { return indexKey(k.all(), key) < 0 }

func indexKey(keys [][]byte, key []byte) int {
	return slices.IndexFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) })
}
