//go:build linux

package main

import (
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/connect"
)

// probeByConnect has the kernel open connections, as an unprivileged agent does.
func probeByConnect(j job, f *found) error {
	spec := j.spec()
	spec.Mode = probe.Connect
	return f.measure(spec, j.Keep, connect.New(connect.Config{}).Do)
}
