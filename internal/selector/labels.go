package selector

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// MaxLength is how many characters a key, a name or a value may have.
const MaxLength = 63

// MaxLabels is how many labels an agent may have.
const MaxLabels = 32

// allowed says in words what isWordRune says in code.
const allowed = "letters, digits, '.', '_' and '-'"

// ParseLabels reads labels of the form KEY=VALUE, as they stand in an agent's
// configuration. A key may be given once. The result satisfies CheckLabels.
func ParseLabels(texts []string) (map[string]string, error) {
	labels := make(map[string]string, len(texts))
	for _, text := range texts {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("label %.80q: '=' is missing; write KEY=VALUE", text)
		}
		if err := checkLabel(key, value); err != nil {
			return nil, fmt.Errorf("label %.80q: %w", text, err)
		}
		if before, twice := labels[key]; twice {
			return nil, fmt.Errorf("label %.80q: the key %s has a value already, %s; write it once", text, key, before)
		}
		labels[key] = value
	}
	if err := checkCount(len(labels)); err != nil {
		return nil, err
	}
	return labels, nil
}

// CheckLabels tells whether labels from elsewhere keep the rules: no more than
// MaxLabels, keys and values of 1 to MaxLength letters, digits, '.', '_' and
// '-', and NameKey not among the keys. With several faults it names that of
// the first key.
func CheckLabels(labels map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if err := checkLabel(key, labels[key]); err != nil {
			return fmt.Errorf("label %.80q: %w", key+"="+labels[key], err)
		}
	}
	return checkCount(len(labels))
}

// CheckName tells whether a name keeps the rules that hold for label values,
// so that a selector can be written for it.
func CheckName(name string) error {
	if err := checkWord("name", name); err != nil {
		return fmt.Errorf("name %.80q: %w", name, err)
	}
	return nil
}

func checkCount(n int) error {
	if n > MaxLabels {
		return fmt.Errorf("%d labels are given; an agent has at most %d", n, MaxLabels)
	}
	return nil
}

func checkLabel(key, value string) error {
	if err := checkWord("key", key); err != nil {
		return err
	}
	if key == NameKey {
		return errors.New("the key name stands for the agent's name; choose another")
	}
	return checkWord("value", value)
}

func checkWord(what, word string) error {
	if word == "" {
		return fmt.Errorf("the %s is missing; it has 1 to %d characters", what, MaxLength)
	}
	for _, r := range word {
		if !isWordRune(r) {
			return fmt.Errorf("%q is not allowed in a %s; use %s", r, what, allowed)
		}
	}
	if len(word) > MaxLength {
		return fmt.Errorf("the %s has %d characters; %d are allowed", what, len(word), MaxLength)
	}
	return nil
}

func isWordRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '.' || r == '_' || r == '-'
}
