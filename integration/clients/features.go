package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// pair is a writer and a reader, at two nodes where the client knows only one.
type pair struct {
	writer, reader session
	prefix         string // of all keys
}

// try connects twice and prints what becomes of each feature.
func try(connect func(door) (session, error), d door, prefix string) error {
	w, err := connect(d)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer w.close()
	r, err := connect(d.from(len(d.addrs) - 1))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer r.close()
	fmt.Println("version", w.version())
	p := pair{w, r, prefix}
	for _, f := range []struct {
		name  string
		check func() error
	}{
		{"strings", p.strings}, {"pipeline", p.pipeline}, {"expiry", p.expiry}, {"scan", p.scan},
		{"multi", p.multi}, {"pubsub", p.pubsub}, {"vctx", p.vctx},
	} {
		switch err := f.check(); {
		case err == nil:
			fmt.Println(f.name, "ok")
		case errors.Is(err, errNotOffered):
			fmt.Println(f.name, "no")
		default:
			fmt.Println(f.name, "wrong", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	return nil
}

// differs is err, or if there was none what the answer was instead.
func differs(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fmt.Errorf(format, args...)
}

func (p pair) strings() error {
	blob := strings.Repeat("naïve ☕ \r\n\x00 \xff end", 500)
	if err := p.writer.set(p.prefix+"blob", blob, 0); err != nil {
		return err
	}
	if v, found, err := p.reader.get(p.prefix + "blob"); errors.Is(err, errNotOffered) {
		return nil // one that only writes
	} else if err != nil || !found || v != blob {
		return differs(err, "read %d bytes of %d", len(v), len(blob))
	}
	if v, found, err := p.reader.get(p.prefix + "absent"); err != nil || found {
		return differs(err, "an absent key is %q", v)
	}
	return nil
}

// many is the number of keys of a pipeline and a scan.
const many = 300

func (p pair) keys() (keys, values []string) {
	for i := range many {
		keys, values = append(keys, fmt.Sprint(p.prefix, "many:", i)), append(values, fmt.Sprint("value ", i))
	}
	return keys, values
}

func (p pair) pipeline() error {
	keys, values := p.keys()
	if err := p.writer.pipeline(keys, values); err != nil {
		return err
	}
	for i := 0; i < many; i += 7 {
		if v, _, err := p.reader.get(keys[i]); errors.Is(err, errNotOffered) {
			return nil
		} else if err != nil || v != values[i] {
			return differs(err, "key %d is %q", i, v)
		}
	}
	return nil
}

func (p pair) expiry() error {
	if err := p.writer.set(p.prefix+"soon", "over", 100*time.Second); err != nil {
		return err
	}
	if left, err := p.reader.life(p.prefix + "soon"); err != nil || left < 90*time.Second || left > 100*time.Second {
		return differs(err, "%v left", left)
	}
	return nil
}

// scan finds the keys of the pipeline.
func (p pair) scan() error {
	keys, _ := p.keys()
	found, err := p.reader.scan(p.prefix + "many:*")
	if err != nil {
		return err
	}
	slices.Sort(keys)
	slices.Sort(found)
	if found = slices.Compact(found); !slices.Equal(found, keys) {
		return fmt.Errorf("%d keys found of %d", len(found), len(keys))
	}
	return nil
}

func (p pair) multi() error {
	v, err := p.writer.transact(p.prefix+"multi", "all or none")
	if err == nil && v != "all or none" {
		err = fmt.Errorf("read %q within the transaction", v)
	}
	return err
}

// pubsub publishes until it is heard: a message may be lost where nodes take each
// other for dead.
func (p pair) pubsub() error {
	heard, stop, err := p.reader.subscribe(p.prefix + "news")
	if err != nil {
		return err
	}
	defer stop()
	const patience = 20 * time.Second
	over := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case text := <-heard:
			if text != "hello" {
				return fmt.Errorf("heard %q", text)
			}
			return nil
		case <-over:
			return fmt.Errorf("nothing heard for %v", patience)
		case <-tick.C:
			if err := p.writer.publish(p.prefix+"news", "hello"); err != nil {
				return err
			}
		}
	}
}

// vctx makes two siblings from one context, then one value of them.
func (p pair) vctx() error {
	key := p.prefix + fmt.Sprint("cart:", time.Now().UnixNano())
	blank, values, err := p.writer.vctxGet(key)
	if err != nil || len(values) != 0 {
		return differs(err, "a new key has %q", values)
	}
	for i, s := range []session{p.writer, p.reader} {
		if _, live, err := s.vctxSet(key, fmt.Sprint("sibling ", i), blank); err != nil || live != int64(i)+1 {
			return differs(err, "write %d left %d versions", i, live)
		}
	}
	token, values, err := p.reader.vctxGet(key)
	if err != nil || len(values) != 2 {
		return differs(err, "two writes from one context left %q", values)
	}
	if _, live, err := p.writer.vctxSet(key, "both", token); err != nil || live != 1 {
		return differs(err, "a write that saw both left %d versions", live)
	}
	if _, values, err = p.reader.vctxGet(key); err != nil || !slices.Equal(values, []string{"both"}) {
		return differs(err, "in the end there is %q", values)
	}
	return nil
}
