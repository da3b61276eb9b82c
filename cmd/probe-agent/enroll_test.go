package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synmesh/synmesh/internal/identity"
)

func TestATokenIsReadFromWhereItWasSaidToBe(t *testing.T) {
	token := identity.NewToken(identity.KeyHash{1})
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token.Text()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, token, file, stdin, wrong string }{
		{name: "the argument", token: token.Text()},
		{name: "a file", file: file},
		{name: "standard input, as a file", file: "-", stdin: token.Text() + "\n"},
		{name: "standard input, as a token", token: "-", stdin: token.Text()},
		{name: "nowhere", wrong: "no token is given; make one with probectl token create, and name its file with --token-file"},
		{name: "a file that is not there", file: file + "x", wrong: "no such file"},
		{name: "a file of something else", file: "-", stdin: "hello", wrong: "it does not begin with synmesh1_"},
		{name: "a file without an end", file: "-", stdin: strings.Repeat("x", 1<<20), wrong: "it does not begin with synmesh1_"},
		{name: "a token that is cut", token: token.Text()[:50], wrong: "it has 50 characters"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readToken(tt.token, tt.file, strings.NewReader(tt.stdin))
			switch {
			case tt.wrong == "" && (err != nil || got != token):
				t.Errorf("got %v, %v", got, err)
			case tt.wrong != "" && (err == nil || !strings.Contains(err.Error(), tt.wrong)):
				t.Errorf("got %v, want %q", err, tt.wrong)
			case err != nil && strings.Contains(err.Error(), token.Text()[20:50]):
				t.Errorf("the error tells the token: %v", err)
			}
		})
	}
}

func TestWhatIsWrongWithACommandIsSaid(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"enroll"}, "no token is given"},
		{[]string{"enroll", "--token", "a", "--token-file", "b"}, "[token token-file]"},
		{[]string{"enroll", "--token", identity.NewToken(identity.KeyHash{}).Text()}, "no controller is given; name one with --controller HOST:PORT"},
		{[]string{"--tls-cert", "a", "--controller", "c:1"}, "[tls-key tls-roots]"},
		{[]string{"--state", t.TempDir(), "--controller", "127.0.0.1:1"}, "holds no certificate"},
	} {
		c := command()
		c.SetArgs(tt.args)
		c.SetErr(&bytes.Buffer{})
		c.SetOut(&bytes.Buffer{})
		if err := c.Execute(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.args, err, tt.want)
		}
	}
}
