// Package synmeshv1 is the API of Synmesh: the messages and services that the
// .proto files beside it define, generated. `make generate` writes it anew.
package synmeshv1
