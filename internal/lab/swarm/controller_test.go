//go:build linux

package swarm_test

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/synmesh/synmesh/controller"
)

// profiles names a folder for profiles of the controller; without it none are written.
const profiles = "SYNMESH_SWARM_PROFILES"

// runController is a controller. Arguments: its folder, and where it listens. Told by
// SIGUSR1, it writes a profile of the next seconds.
func runController(ctx context.Context, args []string) error {
	log, err := os.OpenFile(filepath.Join(args[0], "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cfg := controller.Config{Name: "controller", DataDir: filepath.Join(args[0], "data"), Listen: args[1],
		Advertise: netip.MustParseAddr("127.0.0.1"), Logger: slog.New(slog.NewTextHandler(log, nil))}
	cfg.Gossip.Listen = netip.MustParseAddrPort("127.0.0.1:0")
	c, err := controller.New(cfg)
	if err != nil {
		return err
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	ended := make(chan struct{})
	profiled := make(chan error, 1)
	go func() {
		for {
			select {
			case <-asked:
				if err := profile(filepath.Join(os.Getenv(profiles), time.Now().Format("150405"))); err != nil {
					cfg.Logger.Error("no profile", "reason", err)
				}
			case <-ended:
				profiled <- nil
				return
			}
		}
	}()
	err = c.Run(ctx)
	close(ended)
	<-profiled
	return err
}

// profile writes what the process does in five seconds, and what it holds then.
func profile(path string) error {
	work, err := os.Create(path + ".cpu")
	if err != nil {
		return err
	}
	defer work.Close()
	if err := pprof.StartCPUProfile(work); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	pprof.StopCPUProfile()
	for _, name := range []string{"heap", "goroutine"} {
		f, err := os.Create(path + "." + name)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.Lookup(name).WriteTo(f, 0); err != nil {
			return err
		}
	}
	return nil
}
