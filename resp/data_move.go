package resp

import (
	"bytes"
	"fmt"

	"github.com/redynamo/redynamo/replica/version"
)

// moveCommands carry a value to another key. Each is made of a quorum read and of
// writes that know nothing of each other: there is no atomicity over keys. What
// moves is the value that a plain client is shown, with the time at which it
// expires; its siblings are taken for read, as with a GET and a SET.
func moveCommands() []command {
	return []command{
		{name: "rename", arity: 3, flags: words("write"), last: 2, keySpec: words("RW access delete"), secondSpec: words("OW update"),
			since: "1.0.0", start: startRename,
			args:    []argument{{name: "key", kind: "key"}, {name: "newkey", kind: "key", keySpec: 1}},
			summary: "Write the value of a key under another name, then delete what was read; two writes, not atomic: of concurrent changes of the old key some stay there, and two renames of it may both succeed"},
		{name: "renamenx", arity: 3, flags: words("write fast"), last: 2, keySpec: words("RW access delete"), secondSpec: words("OW insert"),
			since: "1.0.0", start: startRenameNX,
			args:    []argument{{name: "key", kind: "key"}, {name: "newkey", kind: "key", keySpec: 1}},
			summary: "Rename a key unless the new one exists; two writes, not atomic, and no lock: at two coordinators two clients may both succeed"},
		{name: "copy", arity: -3, flags: words("write denyoom"), last: 2, keySpec: words("RO access"), secondSpec: words("OW update"),
			since: "6.2.0", start: startCopy,
			args: []argument{{name: "source", kind: "key"}, {name: "destination", kind: "key", keySpec: 1},
				option("destination-db", "integer", "DB"), option("replace", "pure-token", "REPLACE")},
			summary: "Copy the value and the expiry of a key to another key, as it was when it was read"},
	}
}

// moveHalf is what a rename is answered that has written the new key and could not
// delete the old one. Nothing is taken back: the new value may have been read.
const moveHalf = "UNCERTAIN the value was written under its new name, and the old key may still be there; the failure was: "

func startRename(s *session, args [][]byte) pending {
	return s.peek(args[1], args, func(c *call, w *Reply) {
		switch moved, refused := c.rename(version.CondNone); {
		case refused != "":
			w.Error(refused)
		case moved || bytes.Equal(args[1], args[2]):
			w.Simple("OK")
		}
	})
}

func startRenameNX(s *session, args [][]byte) pending {
	return s.peek(args[1], args, func(c *call, w *Reply) {
		moved, refused := c.rename(version.CondAbsent)
		switch {
		case refused != "":
			w.Error(refused)
		case moved:
			w.Int(1)
		default:
			w.Int(0)
		}
	})
}

// rename carries what was read to the second key and deletes it under the first.
// In this order a failure between the two leaves two copies and never none.
//
// The delete covers what the read found and nothing else, also nothing that the
// connection has seen before: what a newer write left there was not moved.
func (c *call) rename(cond version.Condition) (moved bool, refused string) {
	s, from, to := c.s, c.args[1], c.args[2]
	v, ok := c.shown()
	if !ok {
		return false, errNoKey
	}
	if bytes.Equal(from, to) {
		return false, ""
	}
	moved, err := s.put(to, v, cond)
	switch {
	case err != nil:
		return false, errorText(err)
	case !moved:
		return false, ""
	}
	s.note(eventNew, "new", to)
	if err := s.erase(from, c.read.Record.ReadToken()); err != nil {
		s.note(eventGeneric, "rename_to", to)
		return true, moveHalf + errorText(err)
	}
	s.note(eventGeneric, "rename_from", from)
	s.note(eventGeneric, "rename_to", to)
	return true, ""
}

// put writes a version that was read under another key, and waits. The caller notes
// the event.
func (s *session) put(key []byte, v version.Version, cond version.Condition) (applied bool, err error) {
	op := version.Op{Kind: version.OpSet, Value: v.Value, Cond: cond}
	if v.Expiry.AtMS != 0 {
		op.Expiry, op.ExpireAtMS = version.ExpiryAt, v.Expiry.AtMS
	}
	c := s.beginWrite(key, nil, op, nil)
	c.deed = deed{}
	defer c.release()
	if err := c.wait(); err != nil {
		return false, err
	}
	return c.noteWrite().Applied, nil
}

// erase deletes what seen covers, and waits.
func (s *session) erase(key []byte, seen version.Token) error {
	c := s.newCall(key, nil, nil)
	defer c.release()
	op := version.Op{Kind: version.OpDelete, Explicit: true, MinHLC: s.hlc(), MaxValue: s.limits().MaxValue}
	overwriting(&op, seen)
	c.write(op, s.writeOptions())
	if err := c.wait(); err != nil {
		return err
	}
	c.noteWrite()
	return nil
}

// startCopy copies within the one database there is.
func startCopy(s *session, args [][]byte) pending {
	cond, elsewhere := version.CondAbsent, false
	for i := 3; i < len(args); i++ {
		switch {
		case foldEqual(args[i], "REPLACE"):
			cond = version.CondNone
		case foldEqual(args[i], "DB") && i+1 < len(args):
			i++
			fault := databaseFault(args[i])
			elsewhere = fault == errDatabase && s.door() == Cluster
			if fault != "" && !elsewhere {
				return failed(fault)
			}
		default:
			return failed(errSyntax)
		}
	}
	switch {
	case elsewhere:
		return failed("ERR Copying to another database is not allowed in cluster mode")
	case bytes.Equal(args[1], args[2]):
		return failed("ERR source and destination objects are the same")
	}
	return s.beginRead(args[1], args, func(c *call, w *Reply) {
		v, ok := c.winner()
		if !ok {
			w.Int(0)
			return
		}
		switch applied, err := s.put(args[2], v, cond); {
		case err != nil:
			w.Fail(err)
		case applied:
			s.note(eventNew, "new", args[2])
			s.note(eventGeneric, "copy_to", args[2])
			w.Int(1)
		default:
			w.Int(0)
		}
	})
}

// databaseFault refuses every database but 0.
func databaseFault(number []byte) string {
	index, ok := parseInt(number)
	switch {
	case !ok:
		return errNotInteger
	case index != int64(int32(index)):
		return "ERR value is out of range, value must between -2147483648 and 2147483647"
	case index != 0:
		return errDatabase
	}
	return ""
}

// A setAll is MSETNX under way: reads of all keys, then, if none is there, a
// conditional write of each.
type setAll struct {
	s     *session
	args  [][]byte
	at    []int // where the keys are in args
	reads *fan
	taken bool // some key is there
}

// startMSetNX looks at all keys before it writes any. There is no atomicity over
// keys: one that somebody else sets in between is left alone and reported.
func startMSetNX(s *session, args [][]byte) pending {
	at, fault := s.pairs(args, "msetnx")
	if fault != "" {
		return failed(fault)
	}
	m := &setAll{s: s, args: args, at: at}
	m.reads = &fan{
		n:     len(at),
		begin: func(i int) *call { return s.peek(args[at[i]], nil, nil) },
		fold: func(c *call, _ *Reply) {
			_, there := c.winner()
			m.taken = m.taken || there
		},
	}
	m.reads.launch()
	return m
}

// finish implements pending.
func (m *setAll) finish(w *Reply) {
	if err := m.reads.collect(w); err != nil {
		w.Fail(err) // nothing was written
		return
	}
	if m.taken {
		w.Int(0)
		return
	}
	written := 0
	f := &fan{
		n: len(m.at),
		begin: func(i int) *call {
			k := m.at[i]
			return m.s.beginWrite(m.args[k], nil, version.Op{Kind: version.OpSet, Value: m.args[k+1], Cond: version.CondAbsent}, nil)
		},
		fold: func(c *call, _ *Reply) {
			if c.noteWrite().Applied {
				written++
			}
		},
	}
	err := f.launch().collect(w)
	switch {
	case err != nil && written == 0 && !f.unsure:
		w.Fail(err)
	case err != nil:
		w.Error(fmt.Sprintf("UNCERTAIN wrote %d of %d keys; the first failure was: %s", written, f.n, errorText(err)))
	case written == f.n:
		w.Int(1)
	case written == 0:
		w.Int(0)
	default:
		w.Error(fmt.Sprintf("UNCERTAIN wrote %d of %d keys; the others were there by then", written, f.n))
	}
}
