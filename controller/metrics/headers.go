package metrics

import (
	"crypto/x509"
	"fmt"
	"os"
	"strings"
)

// maxHeaders is how long a file of headers may be, in bytes.
const maxHeaders = 16 << 10

func readRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil // those of the host
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return pool, nil
}

// readHeaders reads the file of headers. Nobody but its owner, and maybe a group, may read it.
func readHeaders(path string) (map[string]string, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return nil, fmt.Errorf("%s: too many may use it (mode %#o), and it holds secrets; chmod 0600 it", path, mode)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	headers, err := parseHeaders(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return headers, nil
}

// parseHeaders reads lines of NAME: VALUE. Empty ones, and those that begin with #, are
// left out. Its errors show no value.
func parseHeaders(text string) (map[string]string, error) {
	if len(text) > maxHeaders {
		return nil, fmt.Errorf("it has %d bytes; %d are allowed", len(text), maxHeaders)
	}
	headers := make(map[string]string)
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || value == "":
			return nil, fmt.Errorf("line %d is not NAME: VALUE", number)
		case !isName(name):
			return nil, fmt.Errorf("line %d: %.80q cannot be the name of a header", number, name)
		case !isPrintable(value):
			return nil, fmt.Errorf("line %d: the value of %s has characters other than printable ASCII", number, name)
		case headers[name] != "":
			return nil, fmt.Errorf("line %d: %s is there a second time", number, name)
		}
		headers[name] = value
	}
	return headers, nil
}

// isName tells whether gRPC takes it as the name of a header with text.
func isName(s string) bool {
	return s != "" && !strings.HasPrefix(s, "grpc-") && !strings.HasSuffix(s, "-bin") &&
		strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", r) }) < 0
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
