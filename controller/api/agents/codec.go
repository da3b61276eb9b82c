package agents

import (
	"errors"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/synmesh/synmesh/controller/history"
	"github.com/synmesh/synmesh/internal/convert"
	"github.com/synmesh/synmesh/proto/synmesh/v1"
)

// Codec is gRPC's own, but for the reports that agents send: they are checked as they are,
// and neither unmarshalled nor marshalled again before they are stored. A server that
// does without works, and takes longer.
type Codec struct{ encoding.CodecV2 }

// NewCodec returns a Codec for grpc.ForceServerCodecV2.
func NewCodec() Codec { return Codec{encoding.GetCodecV2(proto.Name)} }

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ours := v.(*request)
	if !ours {
		return c.CodecV2.Unmarshal(data, v)
	}
	b := buffers.Get().(*[]byte)
	if size := data.Len(); cap(*b) < size {
		*b = make([]byte, size)
	}
	*b = (*b)[:data.Len()]
	data.CopyTo(*b)
	body, ok := onlyReport(*b)
	if !ok {
		buffers.Put(b)
		return c.CodecV2.Unmarshal(data, v)
	}
	r.buffer = b
	return r.check(body)
}

// buffers are for messages of agents.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// checkers remember what blocks look like.
var checkers = sync.Pool{New: func() any { return new(convert.Checker) }}

// onlyReport returns what is in a message that is a report and nothing else.
func onlyReport(data []byte) (body []byte, ok bool) {
	const report = 2
	field, kind, n := protowire.ConsumeTag(data)
	if n < 0 || field != report || kind != protowire.BytesType {
		return nil, false
	}
	body, m := protowire.ConsumeBytes(data[n:])
	return body, m >= 0 && n+m == len(data)
}

// request is what an agent says. Of a report there is only its name in the message; the rest is
// beside it, so that what looks at messages on their way need not know.
type request struct {
	*synmeshv1.SessionRequest
	report  history.Encoded
	sources [][]byte // of its blocks and run ends
	wrong   error    // with the report
	buffer  *[]byte
}

// check looks at a report. The error says that it is none.
func (r *request) check(data []byte) error {
	c := checkers.Get().(*convert.Checker)
	defer checkers.Put(c)
	r.wrong = c.Check(data)
	if errors.Is(r.wrong, convert.ErrEncoding) {
		return r.wrong
	}
	r.sources = append(r.sources[:0], c.Sources...)
	r.report = history.Encoded{Epoch: c.Epoch, Sequence: c.Sequence, Results: c.Results, Bytes: data}
	r.SessionRequest = &synmeshv1.SessionRequest{Message: &synmeshv1.SessionRequest_Report{
		Report: &synmeshv1.Report{Epoch: c.Epoch, Sequence: c.Sequence}}}
	return nil
}

// next reads the next message of a stream in the place of the one before.
func (r *request) next(st stream) error {
	r.release()
	r.SessionRequest = &synmeshv1.SessionRequest{}
	if err := st.RecvMsg(r); err != nil {
		return err
	}
	if m := r.GetReport(); m != nil && r.report.Bytes == nil { // by another codec
		e, err := history.Encode(m)
		if err != nil {
			return err
		}
		return r.check(e.Bytes)
	}
	return nil
}

// release lets others have the memory of the message.
func (r *request) release() {
	if r.buffer != nil {
		buffers.Put(r.buffer)
	}
	r.buffer, r.report, r.wrong = nil, history.Encoded{}, nil
}
