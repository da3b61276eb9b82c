// Package convert turns the vocabulary of package probe into the messages of
// the API and back. It checks what comes from outside: what its functions
// return is whole, or it is an error that names the field.
package convert
