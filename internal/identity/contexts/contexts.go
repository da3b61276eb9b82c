// Package contexts reads and writes the files that tell probectl which
// controller to ask, and as whom. Begin with Read, or with Decode and Encode.
package contexts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/goccy/go-yaml"

	"github.com/synmesh/synmesh/internal/identity"
)

// Context is such a file.
type Context struct {
	// Controller is its gRPC address, as host:port.
	Controller string
	// State is who asks; nil if that stands in files of an own PKI, or nowhere.
	State *identity.State
	// Files of an own PKI; without a Certificate there are none.
	Files identity.FilesConfig
}

// file is the form on the disk.
type file struct {
	Controller  string `yaml:"controller,omitempty"`
	Certificate string `yaml:"certificate,omitempty"`
	Key         string `yaml:"key,omitempty"`
	Roots       string `yaml:"roots,omitempty"`
	Identity    string `yaml:"identity,omitempty"`
}

// ErrNoIdentity says that a context does not tell who asks.
var ErrNoIdentity = errors.New("it does not say who you are; use the operator.yaml of the controller's data folder, or what probectl user create wrote")

// Read reads a context file. One that holds a key must be its owner's alone.
// Names of other files in it are taken from its folder.
func Read(path string) (Context, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Context{}, err
	}
	c, err := Decode(text)
	if err != nil {
		return Context{}, fmt.Errorf("%s: %w", path, err)
	}
	if c.State != nil {
		if err := identity.CheckPrivate(path); err != nil {
			return Context{}, err
		}
	}
	for _, name := range []*string{&c.Files.Certificate, &c.Files.Key, &c.Files.Roots} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(path), *name)
		}
	}
	return c, nil
}

// Decode reads what Encode writes.
func Decode(text []byte) (Context, error) {
	var f file
	if len(bytes.TrimSpace(text)) > 0 {
		if err := yaml.UnmarshalWithOptions(text, &f, yaml.Strict()); err != nil {
			// In full it would show the lines around, and one of them may be the key.
			return Context{}, errors.New(yaml.FormatError(err, false, false))
		}
	}
	c := Context{Controller: f.Controller, Files: identity.FilesConfig{Certificate: f.Certificate, Key: f.Key, Roots: f.Roots}}
	if n := len(f.Certificate) * len(f.Key) * len(f.Roots); n == 0 && f.Certificate+f.Key+f.Roots != "" {
		return Context{}, errors.New("of certificate, key and roots some are missing; they go together")
	}
	if f.Identity == "" {
		return c, nil
	}
	if f.Certificate != "" {
		return Context{}, errors.New("it has an identity and a certificate; drop one of them")
	}
	var err error
	if c.State, err = identity.DecodeState([]byte(f.Identity)); err != nil {
		return Context{}, fmt.Errorf("identity: %w", err)
	}
	return c, nil
}

// Encode writes the context as YAML. It may hold a private key.
func (c Context) Encode() ([]byte, error) {
	f := file{Controller: c.Controller, Certificate: c.Files.Certificate, Key: c.Files.Key, Roots: c.Files.Roots}
	if c.State != nil {
		text, err := c.State.Encode()
		if err != nil {
			return nil, err
		}
		f.Identity = string(text)
	}
	return yaml.MarshalWithOptions(f, yaml.UseLiteralStyleIfMultiline(true))
}

// Credentials returns who asks; ErrNoIdentity if it does not say so.
func (c Context) Credentials() (*identity.Credentials, error) {
	switch {
	case c.State != nil:
		return c.State.Credentials()
	case c.Files.Certificate != "":
		files, err := identity.OpenFiles(c.Files)
		if err != nil {
			return nil, err
		}
		return files.Current()
	}
	return nil, ErrNoIdentity
}
