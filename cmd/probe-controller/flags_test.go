package main

import (
	"io"
	"strings"
	"testing"
)

func TestHowToPushMetricsIsOfNoUseWithoutWhereTo(t *testing.T) {
	for _, flag := range []string{"--otlp-ca=x", "--otlp-headers-file=x", "--otlp-interval=1s"} {
		c := command()
		c.SetArgs([]string{"--data", t.TempDir(), "--name", "a", flag})
		c.SetErr(io.Discard)
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "name a collector with --otlp-endpoint") {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}
