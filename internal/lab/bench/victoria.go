//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/synmesh/synmesh/internal/lab"
)

const (
	victoriaProgram = "victoria-metrics"
	victoriaAddress = "127.0.0.1:8428"
	// victoriaFields is how many samples VictoriaMetrics makes of a result.
	victoriaFields = 4
	// storedAgents is how many agents the results are of that both get.
	storedAgents = 100
	// senders is how many requests VictoriaMetrics gets at a time.
	senders = 8
)

// besideVictoria gives the same results to Synmesh and to VictoriaMetrics, if that is installed.
func (b *suite) besideVictoria(ctx context.Context, p *page) error {
	if _, ok := p.peers.installed[victoriaProgram]; !ok || b.stored == 0 {
		return nil
	}
	agents := min(storedAgents, b.options.ingest)
	b.say("ingest: %d reports of %d agents each, for %s and %s", b.stored, agents, ours, victoriaProgram)
	row, err := b.intake(ctx, "", agents, supply{reports: b.stored}, context.WithCancel)
	if err != nil {
		return fmt.Errorf("ingest: %w", err)
	}
	row.name = ours
	other, err := b.victoria(ctx, agents)
	if err != nil {
		return p.fail(ctx, victoriaProgram, err)
	}
	p.stores([]intakeRow{row, other})
	return nil
}

// victoria measures what VictoriaMetrics takes in.
func (b *suite) victoria(ctx context.Context, agents int) (row intakeRow, err error) {
	if err := b.calm(ctx); err != nil {
		return row, err
	}
	v, err := startVictoria(ctx, b.network.to)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	row = intakeRow{name: victoriaProgram, agents: agents, results: int64(agents) * int64(b.stored) * feederSeries}
	before, err := processorTimeOf(v.program.Process.Pid)
	if err != nil {
		return row, err
	}
	own, err := processorTime()
	if err != nil {
		return row, err
	}
	began := time.Now()
	if err := v.load(ctx, agents, b.stored); err != nil {
		return row, err
	}
	row.took = time.Since(began)
	b.say("ingest: %.0f results/s", float64(row.results)/row.took.Seconds())
	if row.server, err = processorTimeOf(v.program.Process.Pid); err != nil {
		return row, err
	}
	if row.generator, err = processorTime(); err != nil {
		return row, err
	}
	row.server, row.generator = row.server-before, row.generator-own
	if row.peak, err = peakOf(v.program.Process.Pid); err != nil {
		return row, err
	}
	if row.disk[0], err = occupied(v.folder); err != nil {
		return row, err
	}
	if err := v.verify(ctx, row.results); err != nil {
		return row, err
	}
	if err := v.stop(); err != nil { // which writes everything to the disk
		return row, err
	}
	row.archive = v.program.ProcessState.UserTime() + v.program.ProcessState.SystemTime() - before - row.server
	row.disk[1], err = occupied(v.folder)
	return row, err
}

// victoria is VictoriaMetrics in a folder of its own.
type victoria struct {
	on      *lab.Node
	folder  string
	program *exec.Cmd
	log     bytes.Buffer
	client  *http.Client
	ended   bool
}

func startVictoria(ctx context.Context, on *lab.Node) (v *victoria, err error) {
	v = &victoria{on: on}
	v.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders, DisableCompression: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return dialOn(ctx, on, nil, address) }}}
	if v.folder, err = os.MkdirTemp("", "synmesh-bench-"); err != nil {
		return v, err
	}
	v.program = exec.Command(victoriaProgram, victoriaArgs(filepath.Join(v.folder, "data"))...)
	v.program.Stdout, v.program.Stderr = &v.log, &v.log
	if err := on.Start(v.program); err != nil {
		v.ended = true
		return v, errors.Join(err, v.close())
	}
	err = eventually(ctx, victoriaProgram+" answers", func(ctx context.Context) error {
		_, err := v.ask(ctx, http.MethodGet, "/health", nil)
		return err
	})
	if err != nil {
		err = errors.Join(err, v.close())
	}
	return v, err
}

func victoriaArgs(folder string) []string {
	return []string{"-httpListenAddr=" + victoriaAddress, "-storageDataPath=" + folder, "-retentionPeriod=1y", "-loggerLevel=ERROR"}
}

func (v *victoria) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	q, err := http.NewRequestWithContext(ctx, method, "http://"+victoriaAddress+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := v.client.Do(q)
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, answer)
	}
	return answer, nil
}

// load has agents report so often each, over a few connections that are always busy.
func (v *victoria) load(ctx context.Context, agents, reports int) error {
	start := feederStart()
	g, ctx := errgroup.WithContext(ctx)
	for first := range senders {
		g.Go(func() error {
			var feeders []*feeder
			var tags [][]string
			for i := first; i < agents; i += senders {
				feeders = append(feeders, newFeeder(i, start))
				tags = append(tags, feeders[len(feeders)-1].tags())
			}
			var body []byte
			for range reports {
				for i, l := range feeders {
					body = l.lines(body[:0], tags[i])
					if _, err := v.ask(ctx, http.MethodPost, "/write", body); err != nil {
						return err
					}
					l.next++
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// verify looks whether it has taken in what it was sent.
func (v *victoria) verify(ctx context.Context, results int64) error {
	page, err := v.ask(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	samples, err := metric(string(page), `vm_rows_inserted_total{type="influx"}`)
	if err == nil && samples != results*victoriaFields {
		err = fmt.Errorf("%d samples of %d were inserted", samples, results*victoriaFields)
	}
	return err
}

// metric finds a number on a page of metrics.
func metric(page, name string) (int64, error) {
	for line := range strings.Lines(page) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("the page of metrics has no %s", name)
}

func (v *victoria) stop() error {
	if v.ended {
		return nil
	}
	v.ended = true
	_ = v.program.Process.Signal(syscall.SIGTERM) // it may have ended
	if err := v.program.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(v.log.Bytes()[max(0, v.log.Len()-500):]))
	}
	return nil
}

func (v *victoria) close() error {
	v.client.CloseIdleConnections()
	return errors.Join(v.stop(), os.RemoveAll(v.folder))
}
