// Package probe is Synmesh's vocabulary: what is probed (Target), how (Spec),
// and what came of it (Result, Outcome, Stamp, Summary). It validates and it
// formats; it opens no socket, reads no clock and imports the standard library
// only, so every other package may use it.
//
// Start with ParseTargets and Spec.Validate on the way in, and with Result and
// Summary on the way out. The words follow LMAP (RFC 7594) and IPPM (RFC 2330,
// RFC 2681, RFC 3393).
package probe
