package identity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/synmesh/synmesh/internal/selector"
)

// Kind says what somebody is.
type Kind uint8

// The kinds.
const (
	Agent Kind = iota + 1
	Controller
	User
)

// String returns the word that stands in a URI.
func (k Kind) String() string {
	switch k {
	case Agent:
		return "agent"
	case Controller:
		return "controller"
	case User:
		return "user"
	}
	return fmt.Sprintf("kind(%d)", k)
}

// Role says what a person may do. A greater one may do all that a lesser may.
type Role uint8

// The roles.
const (
	Viewer   Role = iota + 1 // may read
	Operator                 // may measure
	Admin                    // may say who belongs to the fleet
)

// String returns the word that stands in a URI.
func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	}
	return fmt.Sprintf("role(%d)", r)
}

// ParseRole reads the word that String returns.
func ParseRole(text string) (Role, error) {
	for r := Viewer; r <= Admin; r++ {
		if text == r.String() {
			return r, nil
		}
	}
	return 0, fmt.Errorf("role %.80q is unknown; it is viewer, operator or admin", text)
}

// Identity is who somebody is. Two are the same if they are equal.
type Identity struct {
	Fleet string // the trust domain
	Kind  Kind
	Name  string
	Role  Role // of users; 0 for all others
}

const scheme = "spiffe://"

// maxFleet is the length of a trust domain, in bytes (SPIFFE-ID 2.1).
const maxFleet = 255

// Check tells whether the identity can be written as a URI.
func (id Identity) Check() error {
	if err := checkFleet(id.Fleet); err != nil {
		return err
	}
	switch {
	case id.Kind < Agent || id.Kind > User:
		return fmt.Errorf("%v is unknown; it is agent, controller or user", id.Kind)
	case id.Kind == User && (id.Role < Viewer || id.Role > Admin):
		return fmt.Errorf("%v is unknown; it is viewer, operator or admin", id.Role)
	case id.Kind != User && id.Role != 0:
		return fmt.Errorf("the %v has a role; only users do", id.Kind)
	}
	return CheckName(id.Name)
}

// CheckName tells whether an agent, a controller or a user may be called so.
// "." and ".." are words for folders, and SPIFFE keeps them out of paths.
func CheckName(name string) error {
	if name == "." || name == ".." {
		return fmt.Errorf("name %q: choose one with a letter or a digit", name)
	}
	return selector.CheckName(name)
}

// URI returns the name that stands in a certificate. The identity must be right.
func (id Identity) URI() string { return scheme + id.Fleet + "/" + id.String() }

// String names somebody to those who know the fleet: "agent/fra-1",
// "user/admin/alice".
func (id Identity) String() string {
	if id.Kind == User {
		return id.Kind.String() + "/" + id.Role.String() + "/" + id.Name
	}
	return id.Kind.String() + "/" + id.Name
}

// Parse reads what URI returns, and nothing else.
func Parse(uri string) (Identity, error) {
	id, err := parse(uri)
	if err != nil {
		return Identity{}, fmt.Errorf("identity %.300q: %w", uri, err)
	}
	return id, nil
}

func parse(uri string) (id Identity, err error) {
	rest, ok := strings.CutPrefix(uri, scheme)
	if !ok {
		return id, fmt.Errorf("it does not begin with %s", scheme)
	}
	parts := strings.Split(rest, "/")
	id.Fleet = parts[0]
	switch {
	case len(parts) == 3 && parts[1] == Agent.String():
		id.Kind, id.Name = Agent, parts[2]
	case len(parts) == 3 && parts[1] == Controller.String():
		id.Kind, id.Name = Controller, parts[2]
	case len(parts) == 4 && parts[1] == User.String():
		if id.Role, err = ParseRole(parts[2]); err != nil {
			return id, err
		}
		id.Kind, id.Name = User, parts[3]
	default:
		return id, errors.New("it is not FLEET/agent/NAME, FLEET/controller/NAME or FLEET/user/ROLE/NAME")
	}
	return id, id.Check()
}

func checkFleet(fleet string) error {
	if fleet == "" || len(fleet) > maxFleet {
		return fmt.Errorf("the fleet's name has %d characters; it has 1 to %d", len(fleet), maxFleet)
	}
	for _, r := range fleet {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_' {
			return fmt.Errorf("%q is not allowed in a fleet's name; use small letters, digits, '.', '_' and '-'", r)
		}
	}
	return nil
}
