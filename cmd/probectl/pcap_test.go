//go:build linux

package main

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/gopacket/pcapgo"

	"github.com/synmesh/synmesh/internal/lab"
	"github.com/synmesh/synmesh/probe"
	"github.com/synmesh/synmesh/probe/packet"
)

// packetsIn reads a pcapng file.
func packetsIn(t *testing.T, path string) (all []packet.Segment) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	must(t, err)
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		var p packet.Packet
		must(t, p.Decode(data))
		all = append(all, p.TCP)
	}
}

func TestAFileHasThePacketsOfItsRunAndNoOthers(t *testing.T) {
	const count = 10
	from, to, _ := linked(t, lab.Impairment{})
	target := netip.AddrPortFrom(to.Addr4(), 7000)
	dir := t.TempDir()
	modes := []string{"half-open", "full"}
	outputs := make([]string, len(modes))
	var running sync.WaitGroup
	for i, mode := range modes { // at once, and with the same target
		running.Go(func() {
			var stderr string
			var code int
			outputs[i], stderr, code = runOn(t, from, "run", target.String(), "-c", "10", "-i", "150ms", "--flows", "2", "--mode", mode, "-o", "jsonl", "--pcap", filepath.Join(dir, mode))
			if code != 0 {
				t.Errorf("mode %s: exit code %d: %s", mode, code, stderr)
			}
		})
	}
	running.Wait()
	var ports [2][]uint16
	for i, mode := range modes {
		want := make(map[uint32]*probe.Result)
		rs := results(t, outputs[i])
		for j := range rs {
			want[rs[j].SYN] = &rs[j]
			if !slices.Contains(ports[i], rs[j].LocalPort) {
				ports[i] = append(ports[i], rs[j].LocalPort)
			}
		}
		seen := make(map[uint32]packet.Flags)
		all := packetsIn(t, filepath.Join(dir, mode))
		for _, s := range all {
			isn, port, remote := s.Seq, s.Src.Port(), s.Dst
			if s.Src == target {
				isn, port, remote = s.Ack, s.Dst.Port(), s.Src
			}
			for range 3 { // a number behind a SYN, and one behind a FIN
				if want[isn] == nil {
					isn--
				}
			}
			if r := want[isn]; r == nil || r.LocalPort != port || remote != target {
				t.Errorf("mode %s: %v is not of this run", mode, &s)
			}
			seen[isn] |= s.Flags
		}
		for isn, r := range want {
			flags := packet.SYN | packet.ACK | packet.RST
			if mode == "full" {
				flags = packet.SYN | packet.ACK | packet.FIN
			}
			if seen[isn] != flags || r.Outcome != probe.Open {
				t.Errorf("mode %s: of %+v there is %v", mode, r, seen[isn])
			}
		}
		if mode == "half-open" && len(all) != 2*count*3 {
			t.Errorf("%d packets, want three of each of %d probes", len(all), 2*count)
		}
	}
	for _, port := range ports[0] {
		if slices.Contains(ports[1], port) {
			t.Errorf("both had port %d", port)
		}
	}
}

func TestATraceIsWrittenToAFile(t *testing.T) {
	from, to, _ := linked(t, lab.Impairment{})
	path := filepath.Join(t.TempDir(), "trace.pcapng")
	_, stderr, code := runOn(t, from, "trace", netip.AddrPortFrom(to.Addr6(), 7000).String(), "--pcap", path)
	if all := packetsIn(t, path); code != 0 || len(all) != 7 {
		t.Errorf("exit code %d, %d packets, want 7: %s", code, len(all), stderr)
	}
	if _, stderr, code := runOn(t, from, "trace", "127.0.0.1:9", "--pcap", filepath.Join(path, "none")); code != 1 || stderr == "" {
		t.Errorf("a file that cannot be: exit code %d, stderr %q", code, stderr)
	}
}
