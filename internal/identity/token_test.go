package identity

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestTokensAreReadAsTheyAreWritten(t *testing.T) {
	token := NewToken(KeyHash{1, 2, 3})
	text := token.Text()
	got, err := ParseToken(text)
	if err != nil || got != token || got.Hash() != token.Hash() || got.Root() != (KeyHash{1, 2, 3}) {
		t.Errorf("%v, %v", got, err)
	}
	if len(text) != 100 {
		t.Errorf("%d characters", len(text))
	}
	if other := NewToken(KeyHash{1, 2, 3}); other == token {
		t.Error("two tokens are the same")
	}
}

func TestEveryTypoInATokenIsTold(t *testing.T) {
	text := NewToken(KeyHash{1}).Text()
	for i := range len(text) {
		for _, wrong := range []byte("aA0-\n ") {
			typo := text[:i] + string(wrong) + text[i+1:]
			if _, err := ParseToken(typo); typo != text && err == nil {
				t.Fatalf("%q instead of %q at %d was taken", wrong, text[i], i)
			}
		}
		if _, err := ParseToken(text[:i]); err == nil {
			t.Fatalf("the first %d characters were taken", i)
		}
		if _, err := ParseToken(text[:i] + "\n" + text[i:]); err == nil {
			t.Fatalf("a line break at %d was taken", i)
		}
	}
}

func TestATokenIsNotPrinted(t *testing.T) {
	token := NewToken(KeyHash{1})
	secret := strings.TrimPrefix(token.Text(), tokenPrefix)[:20]
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("made", "token", token)
	_, err := ParseToken(token.Text()[:99])
	for _, said := range []string{fmt.Sprint(token), fmt.Sprintf("%+v %#v %s %q", token, token, token, token), log.String(), err.Error()} {
		if strings.Contains(said, secret) || strings.Contains(said, fmt.Sprint(token.secret[0], " ", token.secret[1])) {
			t.Errorf("it is in %q", said)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(Token{}.Text())
	f.Add(NewToken(KeyHash{1}).Text())
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Text() != text {
			t.Errorf("%q became %q", text, token.Text())
		}
	})
}
