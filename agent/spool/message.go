package spool

import "google.golang.org/protobuf/encoding/protowire"

// The numbers of what a SessionRequest and a Resume have in them.
const (
	requestReport protowire.Number = 2
	requestResume protowire.Number = 4
	resumeEpoch   protowire.Number = 1
)

// reportMessage returns the encoded SessionRequest with a report, which is encoded
// already: so it need not be decoded to be sent.
func reportMessage(report []byte) []byte {
	b := make([]byte, 0, protowire.SizeTag(requestReport)+protowire.SizeBytes(len(report)))
	return protowire.AppendBytes(protowire.AppendTag(b, requestReport, protowire.BytesType), report)
}

// resumeMessage returns the encoded SessionRequest with a Resume.
func resumeMessage(epoch uint64) []byte {
	resume := protowire.AppendFixed64(protowire.AppendTag(nil, resumeEpoch, protowire.Fixed64Type), epoch)
	return protowire.AppendBytes(protowire.AppendTag(nil, requestResume, protowire.BytesType), resume)
}
