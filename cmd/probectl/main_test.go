package main

import (
	"crypto/ecdsa"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/synmesh/synmesh/controller/api/apitest"
	"github.com/synmesh/synmesh/internal/identity"
	"github.com/synmesh/synmesh/internal/identity/contexts"
	"github.com/synmesh/synmesh/internal/lab"
)

// The test binary is also the programs that the tests run: probectl here, and
// what stands in programs. asProgram names the one.
const asProgram = "SYNMESH_TEST_PROGRAM"

var programs = map[string]func() error{"probectl": func() error { main(); return nil }}

func TestMain(m *testing.M) {
	if program := programs[os.Getenv(asProgram)]; program != nil {
		if err := program(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := lab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	testscript.Main(m, map[string]func(){"probectl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/config")
			e.Setenv("HOME", e.WorkDir)
			// A context of somebody who is known nowhere.
			text, err := contexts.Context{Controller: "127.0.0.1:1", State: state(apitest.NewMembers(t), "nobody")}.Encode()
			if err != nil {
				return err
			}
			dir := filepath.Join(e.WorkDir, "config/synmesh/contexts")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			return identity.WriteFile(filepath.Join(dir, "fra.yaml"), text)
		},
	})
}

// state is that of a new admin of a fleet.
func state(m *apitest.Members, name string) *identity.State {
	c := m.NewUser(name, identity.Admin, 0)
	s := &identity.State{Generation: 1, Key: c.Certificate.PrivateKey.(*ecdsa.PrivateKey), Roots: m.CA.Roots()}
	for _, der := range c.Certificate.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		s.Chain = append(s.Chain, cert)
	}
	return s
}

// exits CODE COMMAND... runs a command that has to end with that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = "?"
		if _, e := fmt.Sscanf(err.Error(), "exit status %s", &code); e != nil {
			ts.Fatalf("%v", err)
		}
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}
