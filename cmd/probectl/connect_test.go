package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/synmesh/synmesh/internal/identity"
)

func TestAPersonIsToldThatTheirCertificateExpires(t *testing.T) {
	const day = 24 * time.Hour
	for _, tt := range []struct {
		kind       identity.Kind
		life, left time.Duration
		told       bool
	}{
		{identity.User, 90 * day, 80 * day, false},
		{identity.User, 90 * day, 13 * day, true},
		{identity.User, time.Hour, 50 * time.Minute, false},
		{identity.User, 90 * day, -day, false}, // the controller says so
		{identity.Agent, day, time.Hour, false},
	} {
		var out bytes.Buffer
		end := time.Now().Add(tt.left)
		(&app{err: &out}).warn(&identity.Credentials{
			Identity:    identity.Identity{Kind: tt.kind},
			Certificate: &tls.Certificate{Leaf: &x509.Certificate{NotBefore: end.Add(-tt.life), NotAfter: end}},
		})
		if got := strings.Contains(out.String(), "have an admin make another"); got != tt.told {
			t.Errorf("%v of %v is left of a certificate of %v: told %v", tt.left, tt.life, tt.kind, got)
		}
	}
}
