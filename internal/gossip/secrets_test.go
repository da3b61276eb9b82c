package gossip

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"
)

func someSecrets() Secrets {
	return Secrets{Keys: Keys{key, [][]byte{otherKey}}, Trusted: []ed25519.PublicKey{public(signer)}}
}

func TestSecretsThatAreWrittenAreReadBack(t *testing.T) {
	text, err := someSecrets().Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeSecrets(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Keys.Primary, key) || len(got.Keys.Others) != 1 || len(got.Trusted) != 1 || !got.Trusted[0].Equal(public(signer)) {
		t.Errorf("got %v, %d others and %d trusted keys", got.Keys, len(got.Keys.Others), len(got.Trusted))
	}
}

func TestSecretsThatAreOfNoUseAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                  "the primary is missing",
		`{"keys":"AAAA"}`:                     "has 3 bytes",
		`{"keys":"MDEyMzQ1Njc4OWFiY2RlZg=="}`: "no key is trusted",
		`{"keys":"MDEyMzQ1Njc4OWFiY2RlZg==","trusted":["AA=="]}`:       "a trusted key has 1 bytes",
		`{"keys":"MDEyMzQ1Njc4OWFiY2RlZg==","trusted":[],"more":true}`: "unknown field",
		`{"keys":"MDEyMzQ1Njc4OWFiY2RlZg==","trusted":[]} {}`:          "something follows",
	} {
		if _, err := DecodeSecrets([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func FuzzDecodeSecrets(f *testing.F) {
	text, err := someSecrets().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"keys":"AAAA","trusted":["AA=="]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := DecodeSecrets(text)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", text, err)
		}
		if _, err := DecodeSecrets(again); err != nil {
			t.Fatalf("%q is written as %q: %v", text, again, err)
		}
	})
}
