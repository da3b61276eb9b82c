package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// tokenPrefix begins every token, so that people and scanners for leaked secrets
// know one when they see it. The digit is that of the format.
const tokenPrefix = "synmesh1_"

const (
	secretSize   = 32
	checksumSize = 4
	tokenSize    = secretSize + sha256.Size + checksumSize
)

// Token lets one host into the fleet, once, and lets it know the fleet. It is a
// secret until it has been used; printing it hides that.
type Token struct {
	secret [secretSize]byte
	pin    KeyHash
}

// TokenHash is what is kept of a token: who has it cannot tell the token.
type TokenHash [sha256.Size]byte

// ID names a token to people and in the audit log.
func (h TokenHash) ID() string { return hex.EncodeToString(h[:8]) }

// NewToken makes a token of the fleet whose root has the key.
func NewToken(root KeyHash) Token {
	t := Token{pin: root}
	_, _ = rand.Read(t.secret[:]) // never fails: it ends the program instead
	return t
}

// Root is the hash of the root's key, which a server must prove to belong to.
func (t Token) Root() KeyHash { return t.pin }

// Hash returns the hash of the secret.
func (t Token) Hash() TokenHash { return sha256.Sum256(t.secret[:]) }

// Text returns the token as it is handed over: 100 characters.
func (t Token) Text() string {
	payload := append(append(make([]byte, 0, tokenSize), t.secret[:]...), t.pin[:]...)
	payload = append(payload, tokenChecksum(payload)...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(payload)
}

// String tells which token it is, and not the token.
func (t Token) String() string { return "token " + t.Hash().ID() }

// GoString implements fmt.GoStringer, for %#v.
func (t Token) GoString() string { return t.String() }

// LogValue implements slog.LogValuer.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// ParseToken reads what Text returns, and nothing else. Its errors never hold
// the token.
func ParseToken(text string) (Token, error) {
	encoded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		return Token{}, fmt.Errorf("token: it does not begin with %s; copy all of what token create printed", tokenPrefix)
	}
	if want := base64.RawURLEncoding.EncodedLen(tokenSize); len(encoded) != want {
		return Token{}, fmt.Errorf("token: it has %d characters, and %d belong to one; copy all of it",
			len(text), want+len(tokenPrefix))
	}
	payload, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || len(payload) != tokenSize {
		return Token{}, errors.New("token: a character is mistyped; letters, digits, '-' and '_' occur in one")
	}
	var t Token
	copy(t.secret[:], payload)
	copy(t.pin[:], payload[secretSize:])
	// The last character has bits to spare; one spelling only is right.
	if t.Text() != text {
		return Token{}, errors.New("token: the checksum is wrong, so a character is mistyped; copy it again")
	}
	return t, nil
}

func tokenChecksum(payload []byte) []byte {
	sum := sha256.Sum256(append([]byte(tokenPrefix), payload...))
	return sum[:checksumSize]
}
