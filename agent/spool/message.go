package spool

import "google.golang.org/protobuf/encoding/protowire"

// The numbers of what a SessionRequest, a Resume and a Preview have in them.
const (
	requestReport  protowire.Number = 2
	requestResume  protowire.Number = 4
	requestPreview protowire.Number = 5
	resumeEpoch    protowire.Number = 1
	previewNumber  protowire.Number = 1
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

// previewMessage returns the encoded SessionRequest with a Preview, whose blocks are encoded
// already: a Preview has them in the same field as a Report.
func previewMessage(number uint64, blocks []byte) []byte {
	size := protowire.SizeTag(previewNumber) + protowire.SizeVarint(number) + len(blocks)
	b := make([]byte, 0, protowire.SizeTag(requestPreview)+protowire.SizeBytes(size))
	b = protowire.AppendVarint(protowire.AppendTag(b, requestPreview, protowire.BytesType), uint64(size))
	b = protowire.AppendVarint(protowire.AppendTag(b, previewNumber, protowire.VarintType), number)
	return append(b, blocks...)
}
