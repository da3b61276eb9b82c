package selector

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Parse reads a selector. Spaces may stand between its parts, and nothing at
// all is the selector that picks every agent. An error is one line that says
// what is wrong, at which character, counted from 1, and what would be right.
func Parse(text string) (Selector, error) {
	p := parser{text: text}
	p.space()
	if p.done() {
		return Selector{}, nil
	}
	var terms []term
	for {
		t, err := p.term()
		if err != nil {
			return Selector{}, err
		}
		terms = append(terms, t)
		p.space()
		if p.done() {
			return canonical(terms), nil
		}
		if !p.take(",") {
			return Selector{}, p.noComma(t)
		}
		p.space()
	}
}

// parser reads text from pos on.
type parser struct {
	text string
	pos  int
}

// term reads one condition; the space before it has been passed.
func (p *parser) term() (term, error) {
	if p.take("!") {
		p.space()
		key, err := p.word("a name is missing after '!'; write !NAME, or KEY!=VALUE")
		if err != nil {
			return term{}, err
		}
		return term{key: key, op: absent}, p.refuseBareName(key, "!=")
	}
	key, err := p.word(p.missingTerm())
	if err != nil {
		return term{}, err
	}
	p.space()
	switch {
	case p.take("!="):
		return p.single(key, notIn, "!=")
	case p.take("=="), p.take("="):
		return p.single(key, in, "=")
	case p.keyword("in"):
		return p.set(key, in, "in")
	case p.keyword("notin"):
		return p.set(key, notIn, "notin")
	}
	return term{key: key, op: exists}, p.refuseBareName(key, "=")
}

// refuseBareName keeps the reserved key from being read as an agent's name.
func (p *parser) refuseBareName(key, op string) error {
	if key != NameKey {
		return nil
	}
	p.pos = strings.LastIndex(p.text[:p.pos], NameKey)
	return p.errorf("%s stands for the agent's name and needs a value; write %s%sNAME", NameKey, NameKey, op)
}

func (p *parser) single(key string, op operator, sign string) (term, error) {
	p.space()
	value, err := p.word(fmt.Sprintf("a value is missing; write %s%sVALUE", key, sign))
	return term{key, op, []string{value}}, err
}

// set reads (VALUE,VALUE).
func (p *parser) set(key string, op operator, keyword string) (term, error) {
	right := fmt.Sprintf("write %s %s (VALUE,VALUE)", key, keyword)
	p.space()
	if !p.take("(") {
		return term{}, p.errorf("'(' is missing after %s; %s", keyword, right)
	}
	var values []string
	for {
		p.space()
		value, err := p.word("a value is missing; " + right)
		if err != nil {
			return term{}, err
		}
		values = append(values, value)
		p.space()
		if p.take(")") {
			slices.Sort(values)
			return term{key, op, slices.Compact(values)}, nil
		}
		if p.take(",") {
			continue
		}
		if err := p.badCharacter(); err != nil {
			return term{}, err
		}
		return term{}, p.errorf("')' or ',' is missing after %s; %s", value, right)
	}
}

// word reads a key, a name or a value; missing is said if there is none.
func (p *parser) word(missing string) (string, error) {
	word := p.peekWord()
	if word == "" {
		if err := p.badCharacter(); err != nil {
			return "", err
		}
		return "", p.errorf("%s", missing)
	}
	if len(word) > MaxLength {
		return "", p.errorf("%.10s... has %d characters; keys, names and values have at most %d", word, len(word), MaxLength)
	}
	p.pos += len(word)
	return word, nil
}

// keyword takes a word if it is just that one.
func (p *parser) keyword(word string) bool {
	return p.peekWord() == word && p.take(word)
}

func (p *parser) peekWord() string {
	rest := p.text[p.pos:]
	end := strings.IndexFunc(rest, func(r rune) bool { return !isWordRune(r) })
	if end < 0 {
		return rest
	}
	return rest[:end]
}

func (p *parser) take(token string) bool {
	if !strings.HasPrefix(p.text[p.pos:], token) {
		return false
	}
	p.pos += len(token)
	return true
}

func (p *parser) space() {
	p.pos = len(p.text) - len(strings.TrimLeft(p.text[p.pos:], " \t"))
}

func (p *parser) done() bool { return p.pos == len(p.text) }

// missingTerm says what to write where a term should begin and none does.
func (p *parser) missingTerm() string {
	if rest := p.text[p.pos:]; rest != "" && strings.ContainsRune("=()", rune(rest[0])) {
		return fmt.Sprintf("a key is missing before %q; write KEY=VALUE", rest[0])
	}
	return "a term is missing; write KEY=VALUE, or take the comma away"
}

// noComma says why t cannot be followed by what stands there.
func (p *parser) noComma(t term) error {
	if err := p.badCharacter(); err != nil {
		return err
	}
	next := p.peekWord()
	switch {
	case t.op == absent && strings.HasPrefix(p.text[p.pos:], "="):
		return p.errorf("'=' cannot follow !%s; write %s!=VALUE", t.key, t.key)
	case t.op == absent && (next == "in" || next == "notin"):
		return p.errorf("%s cannot follow !%s; write %s notin (VALUE,VALUE)", next, t.key, t.key)
	case t.op == exists && next != "":
		return p.errorf("%.20s follows %s without a sign between them; write %s=VALUE, or a comma", next, t.key, t.key)
	case next != "":
		return p.errorf("%.20s follows without a comma; write TERM,TERM", next)
	}
	return p.errorf("%q cannot stand here; write a comma, or end the selector", p.text[p.pos])
}

// badCharacter refuses a character that has no place in any selector.
func (p *parser) badCharacter() error {
	r, size := utf8.DecodeRuneInString(p.text[p.pos:])
	if size == 0 || isWordRune(r) || strings.ContainsRune(" \t,()!=", r) {
		return nil
	}
	return p.errorf("%q is not allowed; keys, names and values are made of %s", r, allowed)
}

func (p *parser) errorf(format string, args ...any) error {
	at := utf8.RuneCountInString(p.text[:p.pos]) + 1
	return fmt.Errorf("selector %q: at %d: %s", p.text, at, fmt.Sprintf(format, args...))
}
