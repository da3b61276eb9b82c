package main

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/synmesh/synmesh/controller"
	"github.com/synmesh/synmesh/controller/backup"
	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/gossip"
)

func TestHowMuchIsKept(t *testing.T) {
	for _, tt := range []struct {
		args string
		want history.Config
	}{
		{"", history.Config{}},
		{"--retention 36h --retention-minutes 30d --retention-hours 730d", history.Config{Retention: 36 * time.Hour, MinuteRetention: 30 * day, HourRetention: 730 * day}},
		{"--max-size 50GiB", history.Config{MaxSize: 50 << 30}},
		{"--max-size 500MB", history.Config{MaxSize: 500e6}},
		{"--max-size 100000000", history.Config{MaxSize: 1e8}},
		{"--max-size 2TB", history.Config{MaxSize: 2e12}},
	} {
		var cfg history.Config
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		historyFlags(f, &cfg)
		if err := f.Parse(strings.Fields(tt.args)); err != nil {
			t.Errorf("%s: %v", tt.args, err)
		}
		if cfg.Retention != tt.want.Retention || cfg.MinuteRetention != tt.want.MinuteRetention || cfg.HourRetention != tt.want.HourRetention || cfg.MaxSize != tt.want.MaxSize {
			t.Errorf("%s: %+v", tt.args, cfg)
		}
	}
}

func TestWrongAmountsAreRefusedInClearWords(t *testing.T) {
	for args, want := range map[string]string{
		"--retention=7 days":                 `invalid argument "7 days" for "--retention" flag: it is no time such as 90d or 36h`,
		"--retention=-1h":                    "longer than nothing",
		"--retention=0":                      "longer than nothing",
		"--retention=d":                      "it is no time",
		"--retention-hours=1000000d":         "too long",
		"--retention-minutes=-3d":            "it is no time",
		"--max-size=lots":                    `invalid argument "lots" for "--max-size" flag: it is no size such as 500MB or 50GiB`,
		"--max-size=-5GB":                    "no size",
		"--max-size=":                        "no size",
		"--max-size=10MB":                    "10000000 bytes are too few; 64 MiB are the least",
		"--max-size=99999999TiB":             "more than there can be",
		"--max-size=99999999999999999999999": "no size",
	} {
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		f.Usage = func() {}
		historyFlags(f, &history.Config{})
		if err := f.Parse([]string{args}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

// run runs a command line.
func run(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&bytes.Buffer{})
	err = c.ExecuteContext(t.Context())
	return out.String(), err
}

// dataFolder makes that of a controller that has been started.
func dataFolder(t *testing.T) string {
	t.Helper()
	dir, loopback := t.TempDir(), netip.MustParseAddr("127.0.0.1")
	c, err := controller.New(controller.Config{
		Name: "controller-1", DataDir: dir, Listen: "127.0.0.1:0", Advertise: loopback,
		Gossip: gossip.Config{Listen: netip.AddrPortFrom(loopback, 0)},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCheckSaysOfEachFileHowItIs(t *testing.T) {
	dir := dataFolder(t)
	out, err := run(t, "check", "--data", dir)
	if err != nil || !strings.Contains(out, "ok       registry/registry.db: ") || !strings.Contains(out, "files are well\n") {
		t.Errorf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "gossip.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = run(t, "check", "--data", dir)
	if err == nil || !strings.Contains(err.Error(), "1 of ") || !strings.Contains(out, "DAMAGED  gossip.json") || !strings.Contains(out, "restore it from a backup") {
		t.Errorf("%v\n%s", err, out)
	}
	for want, args := range map[string][]string{
		"name a data folder with --data": {"check"},
		"no such file":                   {"check", "--data", filepath.Join(dir, "nowhere")},
		"none of the others can be":      {"check", "--data", dir, "--backup", "x"},
		"there is no registry in":        {"check", "--data", t.TempDir()},
		"damaged, or no backup":          {"check", "--backup", filepath.Join(dir, "gossip.json")},
	} {
		if _, err := run(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestRestoreMakesAFolderOnlyOfWhatIsRight(t *testing.T) {
	file := filepath.Join(t.TempDir(), "backup.tar")
	var data bytes.Buffer
	w, err := backup.New(&data, "controller-1", time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.AddBytes("gossip.json", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(t.TempDir(), "data")
	write(data.Bytes()[:1000])
	if _, err := run(t, "restore", "--data", dir, "--from", file); err == nil || !strings.Contains(err.Error(), "damaged, or no backup") {
		t.Errorf("half a backup: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was made of it: %v", err)
	}
	write(data.Bytes())
	if out, err := run(t, "check", "--backup", file); err != nil || !strings.Contains(out, "the backup of controller controller-1 of 2026-11-20T12:00:00Z") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run(t, "restore", "--data", dir, "--from", file); err != nil || !strings.Contains(out, "restored") {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := run(t, "restore", "--data", dir, "--from", file); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("twice: %v", err)
	}
}
