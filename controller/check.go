package controller

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/controller/registry"
	"github.com/synmesh/synmesh/internal/identity"
)

// Finding is what Check says about a file.
type Finding struct {
	// File is its name in the data folder.
	File string
	// Records is how many entries of it are well, and Corrupt how many are not.
	Records, Corrupt int
	// Err says what else is wrong with it.
	Err error
	// Advice says what to do about it; empty if it is well.
	Advice string
}

// OK tells whether the file is well.
func (f Finding) OK() bool { return f.Corrupt == 0 && f.Err == nil }

// What to do about what is wrong.
const (
	adviceRestore = "restore it from a backup, with the controller stopped"
	adviceFormat  = "run the version of probe-controller that wrote it, or move the file away"
	adviceStop    = "stop the controller, or check a backup of it: probectl backup, and check --backup"
	adviceDrop    = "the controller runs without what is missing; a backup that is older than the damage may have it"
)

// Check reads every file of a data folder and calls report for each. It changes nothing. The
// error is about the folder, or the context's, never about a file.
func Check(ctx context.Context, dir string, report func(Finding)) error {
	if info, err := os.Stat(dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	if _, err := os.Stat(filepath.Join(dir, registryFolder)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no registry in %s; name the folder that the controller was given with --data", dir)
	}
	f := Finding{File: registryFolder + "/registry.db"}
	if f.Records, f.Err = registry.Check(ctx, filepath.Join(dir, registryFolder)); ctx.Err() != nil {
		return ctx.Err()
	}
	f.Advice = adviceOn(f.Err, adviceRestore)
	report(f)
	if err := checkKeys(dir, report); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, historyFolder)); errors.Is(err, fs.ErrNotExist) {
		return nil // it has never been started, or keeps it elsewhere
	}
	return history.Check(ctx, filepath.Join(dir, historyFolder), func(h history.Finding) {
		f := Finding{File: historyFolder + "/" + h.File, Records: h.Records, Corrupt: h.Corrupt, Err: h.Err}
		if !f.OK() {
			f.Advice = adviceOn(f.Err, adviceDrop)
		}
		report(f)
	})
}

func adviceOn(err error, usual string) string {
	switch {
	case err == nil && usual == adviceRestore:
		return ""
	case errors.Is(err, registry.ErrInUse):
		return adviceStop
	case errors.Is(err, history.ErrFormat) || errors.Is(err, registry.ErrFormat):
		return adviceFormat
	}
	return usual
}

// checkKeys looks at the files of the CA and of the gossip.
func checkKeys(dir string, report func(Finding)) error {
	entries, err := os.ReadDir(filepath.Join(dir, authorityDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // with an own PKI there is no CA
		return err
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".crt") || strings.HasSuffix(name, ".pem") || strings.HasSuffix(name, ".key") {
			report(checkFile(dir, authorityDir+"/"+name, func(text []byte) error {
				if b, _ := pem.Decode(text); b == nil {
					return errors.New("it is not PEM")
				}
				return nil
			}))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, heraldName)); err == nil {
		report(checkFile(dir, heraldName, func(text []byte) error {
			return json.Unmarshal(text, &heraldFile{})
		}))
	}
	return nil
}

func checkFile(dir, name string, check func([]byte) error) Finding {
	f := Finding{File: name}
	path := filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err == nil {
		err = check(text)
	}
	if err == nil && !strings.HasSuffix(name, ".crt") {
		err = identity.CheckPrivate(path)
	}
	if f.Err = err; err == nil {
		f.Records = 1
	} else {
		f.Advice = adviceRestore
	}
	return f
}
