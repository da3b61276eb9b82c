package contexts

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synmesh/synmesh/internal/identity"
)

func some(t testing.TB) Context {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return Context{Controller: "ctl:7400", State: &identity.State{Pending: key}}
}

func TestAContextThatIsWrittenIsReadBack(t *testing.T) {
	text, err := some(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := identity.WriteFile(path, text); err != nil {
		t.Fatal(err)
	}
	c, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.Encode(); err != nil || !bytes.Equal(again, text) {
		t.Errorf("written again it is\n%s\nand was\n%s: %v", again, text, err)
	}
	if _, err := c.Credentials(); !errors.Is(err, identity.ErrNotEnrolled) {
		t.Errorf("a key without a certificate: %v", err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); err == nil || !strings.Contains(err.Error(), "chmod 0600 it") {
		t.Errorf("a file that others may read: %v", err)
	}
}

func TestFilesOfAnOwnPKIAreTakenFromTheFolderOfTheContext(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(path, []byte("controller: c:1\ncertificate: tls.crt\nkey: /k/tls.key\nroots: sub/ca.crt\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Files.Certificate != filepath.Join(dir, "tls.crt") || c.Files.Key != "/k/tls.key" || c.Files.Roots != filepath.Join(dir, "sub/ca.crt") {
		t.Errorf("got %+v", c.Files)
	}
}

func TestWhatIsWrongWithAContextIsSaid(t *testing.T) {
	for text, want := range map[string]string{
		"controler: c:1\n":                                `unknown field "controler"`,
		"certificate: a\nkey: b\n":                        "some are missing",
		"identity: '{}'\n":                                "its format is",
		"identity: x\ncertificate: a\nkey: b\nroots: c\n": "drop one of them",
	} {
		if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := (Context{Controller: "c:1"}).Credentials(); !errors.Is(err, ErrNoIdentity) {
		t.Errorf("nobody: %v", err)
	}
}

// What is wrong is told without the lines around it, one of which may hold the key.
func TestAMistakeInAContextDoesNotShowTheKey(t *testing.T) {
	text, err := some(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, err = Decode(append(text, "controler: c:1\n"...))
	if err == nil || strings.Contains(err.Error(), "PRIVATE KEY") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	text, err := some(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("controller: c:1\ncertificate: a\nkey: b\nroots: c\n"))
	f.Add([]byte("controller: :\r\ncertificate:\n00 0"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Decode(text)
		if err != nil {
			return
		}
		if c.State != nil && c.Files.Certificate != "" {
			t.Fatalf("%q has two identities", text)
		}
	})
}
