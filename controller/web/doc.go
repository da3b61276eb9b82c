// Package web serves the API as JSON over HTTP, and the metrics. There is no
// plaintext: who calls shows a certificate of the fleet, as for gRPC.
//
// Requests of the API go over an identity.Relay to the gRPC server, where the same
// guard lets them through, and the same services answer. What is where stands in
// proto/synmesh/v1/http.yaml; package gateway is generated from it.
//
// Begin with New, then Run.
package web
