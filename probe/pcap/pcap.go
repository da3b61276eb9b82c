// Package pcap writes packets as pcapng, for Wireshark and its like. It stands
// apart from probe/packet because the library that it uses takes seven megabytes
// of memory, which an agent has no use for.
//
// Call NewWriter, Writer.Write for each packet, and Writer.Close at the end.
package pcap

import (
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/synmesh/synmesh/probe/packet"
)

// Writer writes packets that start at their IP header (LINKTYPE_RAW), with
// nanoseconds, and the device where each was seen.
type Writer struct {
	w       io.Writer
	section pcapgo.NgSectionInfo
	snapLen uint32
	ng      *pcapgo.NgWriter // made with the first device, or by Close
	devices map[string]*device
	last    time.Time
}

type device struct {
	id       int
	received uint64
}

// NewWriter returns a Writer of packets that were cut at snapLen bytes.
// Program and comment stand in the file's header. Call Close at the end; it
// does not close w.
func NewWriter(w io.Writer, program, comment string, snapLen int) *Writer {
	return &Writer{
		w: w, snapLen: uint32(snapLen), devices: make(map[string]*device),
		section: pcapgo.NgSectionInfo{Hardware: runtime.GOARCH, OS: runtime.GOOS, Application: program, Comment: comment},
	}
}

// Write adds a packet that was seen on a device at a time in nanoseconds since
// 1970. Padding behind the packet is left out.
func (p *Writer) Write(stamp int64, name string, data []byte) error {
	captured, missing, err := packet.Length(data)
	if err != nil {
		return err
	}
	d, err := p.on(name)
	if err != nil {
		return err
	}
	d.received++
	p.last = time.Unix(0, stamp)
	data = data[:captured]
	return p.ng.WritePacket(gopacket.CaptureInfo{
		Timestamp: p.last, InterfaceIndex: d.id, CaptureLength: len(data), Length: len(data) + missing,
	}, data)
}

// on returns what the file knows of a device, after adding one that is new.
func (p *Writer) on(name string) (*device, error) {
	if d := p.devices[name]; d != nil {
		return d, nil
	}
	about := pcapgo.NgInterface{Name: name, OS: p.section.OS, LinkType: layers.LinkTypeRaw, SnapLength: p.snapLen, TimestampResolution: 9}
	d := &device{}
	var err error
	if p.ng == nil { // the file's header comes with its first device
		p.ng, err = pcapgo.NewNgWriterInterface(p.w, about, pcapgo.NgWriterOptions{SectionInfo: p.section})
	} else {
		d.id, err = p.ng.AddInterface(about)
	}
	if err != nil {
		return nil, fmt.Errorf("begin pcapng of %s: %w", name, err)
	}
	p.devices[name] = d
	return d, nil
}

// Flush hands what was written to the writer below.
func (p *Writer) Flush() error {
	if p.ng == nil {
		return nil
	}
	return p.ng.Flush()
}

// Close ends the file, which is a sound one even without packets, and says in it
// how many packets were dropped before they could be written.
func (p *Writer) Close(drops uint64) error {
	if len(p.devices) == 0 {
		if _, err := p.on("any"); err != nil {
			return err
		}
	}
	for _, d := range p.devices {
		// Which device the drops were on is not known: each tells of them all.
		err := p.ng.WriteInterfaceStats(d.id, pcapgo.NgInterfaceStatistics{LastUpdate: p.last, PacketsReceived: d.received, PacketsDropped: drops})
		if err != nil {
			return err
		}
	}
	return p.Flush()
}
