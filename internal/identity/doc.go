// Package identity says who somebody in the fleet is, and proves it: names in
// certificates, keys and where they are kept, tokens for the first contact, and
// TLS both ways. What a certificate says is all that is believed.
//
// A side of a connection has a Source, which gives its certificate and the roots
// for the handshake that begins now: a Folder (an agent's state), a State (a
// person's, in a context file), Files (of an own PKI, watched), or the
// controller's own. Hand it to
// ServerCredentials and ClientCredentials for gRPC, to ServerTLS and ClientTLS
// for anything else. On the server, FromContext tells who calls; a Relay brings in those
// who came by another protocol. An agent that has no certificate yet has a Token, and
// calls with PinnedTLS.
//
// # Names
//
// A certificate has one URI: spiffe://FLEET/agent/NAME, /controller/NAME or
// /user/ROLE/NAME. FLEET is derived from the key of the fleet's root; in an own
// PKI it is whatever the PKI chose, the same for everybody.
//
// # What stays compatible
//
// The URIs, the text of tokens, and the files of states, which name their format.
package identity
