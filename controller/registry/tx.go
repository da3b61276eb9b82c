package registry

import (
	"bytes"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// maxPage is how many entries a list returns at once.
const maxPage = 1000

// tx is a transaction, and what it changes in the registry's memory.
type tx struct {
	*bbolt.Tx
	registry     *Registry
	agents       map[string]standing
	users        map[string]standing
	measurements *measurements // nil: as they were
}

// agent returns the agent of that name; nil if there is none.
func (t *tx) agent(name string) (*agent, error) { return get[agent](t.Bucket(agentsBucket), name) }

func (t *tx) putAgent(name string, a *agent) error {
	if t.agents == nil {
		t.agents = make(map[string]standing)
	}
	t.agents[name] = a.standing()
	return put(t.Bucket(agentsBucket), name, a)
}

// user returns the user of that name; nil if there is none.
func (t *tx) user(name string) (*user, error) { return get[user](t.Bucket(usersBucket), name) }

func (t *tx) putUser(name string, u *user) error {
	if t.users == nil {
		t.users = make(map[string]standing)
	}
	t.users[name] = u.standing()
	return put(t.Bucket(usersBucket), name, u)
}

func get[T any](b *bbolt.Bucket, key string) (*T, error) {
	value := b.Get([]byte(key))
	if value == nil {
		return nil, nil
	}
	return decode[T](key, value)
}

func put[T any](b *bbolt.Bucket, key string, record *T) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("record %q: %w", key, err)
	}
	return b.Put([]byte(key), value)
}

func decode[T any](key string, value []byte) (*T, error) {
	record := new(T)
	if err := json.Unmarshal(value, record); err != nil {
		return nil, fmt.Errorf("%w: record %q: %w", ErrDamaged, key, err)
	}
	return record, nil
}

// each calls fn for all records of a bucket, in order.
func each[T any](b *bbolt.Bucket, fn func(key string, record *T) error) error {
	return b.ForEach(func(k, v []byte) error {
		record, err := decode[T](string(k), v)
		if err != nil {
			return err
		}
		return fn(string(k), record)
	})
}

// page calls fn for the records after a key, as many as are asked for, maxPage at most.
func page[T any](b *bbolt.Bucket, after string, limit int, fn func(key string, record *T)) error {
	c := b.Cursor()
	k, v := c.Seek([]byte(after))
	if k != nil && after != "" && bytes.Equal(k, []byte(after)) {
		k, v = c.Next()
	}
	for n := bounded(limit); k != nil && n > 0; k, v = c.Next() {
		record, err := decode[T](string(k), v)
		if err != nil {
			return err
		}
		fn(string(k), record)
		n--
	}
	return nil
}

func bounded(limit int) int {
	if limit <= 0 || limit > maxPage {
		return maxPage
	}
	return limit
}
