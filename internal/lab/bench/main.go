//go:build linux

// Bench measures what Synmesh's engine is good for, and its peers beside it
// where they are installed: the error of the round trips that it reports, how
// fast it sends, what it costs the host that it runs on, and what it costs
// everybody else there. It prints Markdown.
//
// Everything is in network namespaces of its own, from which no packet gets
// out, and gone when it ends. It runs as root or not, and installs nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/synmesh/synmesh/internal/lab"
)

// within bounds the whole program.
const within = 15 * time.Minute

func main() {
	if ran, err := childMain(os.Stdout); ran {
		exit(err)
		return
	}
	if err := lab.Enter(); err != nil {
		exit(err)
	}
	o := full
	quick := flag.Bool("quick", false, "a smoke test of some seconds, whose figures mean little")
	targets := flag.Int("targets", 0, fmt.Sprintf("how many targets the rate is measured with: a power of two, %d at most", maxTargets))
	only := flag.String("only", "", "measure these `sections` only, of accuracy, rate, bystander, steady, ingest and latency, with commas between them")
	agents := flag.Int("agents", 0, "how many agents ingest has")
	length := flag.Duration("length", 0, "how long they report, and how long latency is measured")
	rate := flag.Float64("rate", 0, "results a second that the agents of ingest report in all, instead of as many as possible")
	reports := flag.Int("reports", 0, "how many reports of each agent are given to other stores, too")
	rounds := flag.Int("rounds", 0, "how often the rate is measured; the best one counts")
	profiles := flag.String("profiles", "", "write CPU profiles of the engine, as the rate is measured, to this `folder`")
	file := flag.String("write", "", "write the page to this `file`, too")
	flag.Parse()
	if flag.NArg() > 0 {
		exit(fmt.Errorf("%q is not understood; see -help", flag.Arg(0)))
	}
	if *quick {
		o = smoke
	}
	if *targets != 0 {
		o.targets = *targets
	}
	if *rounds > 0 {
		o.rounds = *rounds
	}
	if *agents > 0 {
		o.ingest = *agents
	}
	if *length > 0 {
		o.ingestFor, o.latencyFor = *length, *length
	}
	if *reports > 0 {
		o.stored = *reports
	}
	if *rate > 0 {
		o.ingestRate = *rate
	}
	o.profiles = *profiles
	if *only != "" {
		if err := o.keep(strings.Split(*only, ",")); err != nil {
			exit(err)
		}
	}
	exit(bench(o, *file))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(o options, file string) error {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, within)
	defer cancel()
	p, err := run(ctx, o, os.Stderr)
	if err != nil {
		return err
	}
	text := p.markdown()
	fmt.Print(text)
	if file == "" {
		return nil
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// run measures everything that the options ask for, and says on progress what it is at.
func run(ctx context.Context, o options, progress io.Writer) (p *page, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n, err := build(o.targets)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.close()) }()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &suite{options: o, network: n, bin: filepath.Dir(self), peers: findPeers(ctx), progress: progress}
	p = newPage(o, b.peers)
	for _, section := range []struct {
		wanted  bool
		measure func(context.Context, *page) error
	}{
		{o.probes > 0, b.accuracy},
		{o.rounds > 0, b.rate},
		{o.slice > 0, b.bystander},
		{o.seconds > 0, b.steady},
		{o.ingest > 0, b.ingest},
		{o.latencyFor > 0, b.latency},
	} {
		if section.wanted {
			if err := section.measure(ctx, p); err != nil {
				return nil, err
			}
		}
	}
	p.commands(n)
	p.finish()
	return p, nil
}

// suite is what all measurements need.
type suite struct {
	options
	network  *network
	bin      string // the folder of probe-agent and its like; empty if they are not there
	peers    peers
	progress io.Writer
}

func (b *suite) say(format string, args ...any) { fmt.Fprintf(b.progress, format+"\n", args...) }
