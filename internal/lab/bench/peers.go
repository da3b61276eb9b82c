//go:build linux

package main

import (
	"context"
	"os/exec"
	"regexp"
	"time"
)

// peer is a program that does some of what Synmesh does.
type peer struct{ program, version string }

func (p peer) String() string { return p.program + " " + p.version }

// peers are those that this machine has, and those that it has not.
type peers struct {
	installed map[string]peer
	missing   []string
}

var (
	askVersion  = map[string]string{"hping3": "-v", "nping": "--version", "scamper": "-v", "masscan": "--version", "zmap": "--version", victoriaProgram: "-version"}
	peerNames   = []string{"hping3", "nping", "scamper", "masscan", "zmap", victoriaProgram}
	versionText = regexp.MustCompile(`\b\d+\.\d+[-.\w]*|\b\d{8}\b`)
)

// findPeers looks for programs in PATH, and asks them for their versions.
func findPeers(ctx context.Context) peers {
	ps := peers{installed: make(map[string]peer)}
	for _, name := range peerNames {
		if _, err := exec.LookPath(name); err != nil {
			ps.missing = append(ps.missing, name)
			continue
		}
		brief, cancel := context.WithTimeout(ctx, 5*time.Second)
		// Some end with a failure after they have told their version.
		out, _ := exec.CommandContext(brief, name, askVersion[name]).CombinedOutput()
		cancel()
		ps.installed[name] = peer{name, string(versionText.Find(out))}
	}
	return ps
}
