package resp

import (
	"slices"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

func TestRenameMovesTheWinnerAndDeletesAllThatWasRead(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	d.store.put(t, "a", "older", nil)
	d.store.put(t, "a", "newer", nil)
	c.lines("RENAME a b", "+OK\r\n", "GET a", "$-1\r\n", "GET b", "$5\r\nnewer\r\n")
	if left := d.store.record("a").Versions; len(left) != 0 {
		t.Errorf("%d versions are left", len(left))
	}
}

func TestRenameLeavesWhatItHasNotRead(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.lines("SET a 1", "+OK\r\n")
	s := d.session()
	// Somebody writes between the read and the delete.
	p := startRename(s, [][]byte{[]byte("rename"), []byte("a"), []byte("b")})
	d.store.put(t, "a", "late", d.store.record("a").Context)
	w := Reply{proto: 2}
	p.finish(&w)
	if string(w.buf) != "+OK\r\n" {
		t.Errorf("got %q", w.buf)
	}
	c.lines("GET b", "$1\r\n1\r\n", "GET a", "$4\r\nlate\r\n")
}

func TestRenameThatFailsHalfwaySaysSoAndLosesNothing(t *testing.T) {
	for _, failure := range []error{coordinator.ErrNoReplicas, coordinator.ErrOverloaded, &coordinator.UncertainError{Acked: 1, Want: 2}} {
		d := newDataDoor(t)
		c := d.connect()
		c.lines("SET a 1", "+OK\r\n")
		s := d.session()
		for _, start := range []starter{startRename, startRenameNX} {
			p := start(s, [][]byte{[]byte("rename"), []byte("a"), []byte("b")})
			d.store.mu.fail["a"] = failure
			w := Reply{proto: 2}
			p.finish(&w)
			if want := "-" + moveHalf + errorText(failure); !strings.HasPrefix(string(w.buf), want) {
				t.Errorf("got %q, want %q", w.buf, want)
			}
			d.store.mu.fail["a"] = nil
			c.lines("MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n1\r\n", "DEL b", ":1\r\n")
		}
	}
}

func TestMoveThatCannotWriteTheNewKeyLeavesTheOldOne(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.lines("SET a 1", "+OK\r\n")
	d.store.mu.fail["b"] = coordinator.ErrNoReplicas
	refused := "-NOREPLICAS Not enough good replicas to write.\r\n"
	c.lines("RENAME a b", refused, "RENAMENX a b", refused, "COPY a b", refused, "GET a", "$1\r\n1\r\n")
	d.store.mu.fail["a"] = coordinator.ErrNoReadQuorum
	refused = "-NOREPLICAS Not enough good replicas to read.\r\n"
	c.lines("RENAME a c", refused, "RENAMENX a c", refused, "COPY a c", refused, "MSETNX c 1 a 1", refused, "EXISTS c", ":0\r\n")
}

func TestMSetNXNeverOverwritesAndReportsAPart(t *testing.T) {
	args := [][]byte{[]byte("msetnx"), []byte("a"), []byte("1"), []byte("b"), []byte("2"), []byte("c"), []byte("3")}
	for _, c := range []struct {
		taken  []string // set by somebody else after the look
		failed []string
		with   error
		want   string
	}{
		{nil, nil, nil, ":1\r\n"},
		{[]string{"a", "b", "c"}, nil, nil, ":0\r\n"},
		{[]string{"b"}, nil, nil, "-UNCERTAIN wrote 2 of 3 keys; the others were there by then\r\n"},
		{nil, []string{"b"}, coordinator.ErrNoReplicas, "-UNCERTAIN wrote 2 of 3 keys; the first failure was: NOREPLICAS Not enough good replicas to write.\r\n"},
		{nil, []string{"a", "b", "c"}, coordinator.ErrNoReplicas, "-NOREPLICAS Not enough good replicas to write.\r\n"},
		{[]string{"a"}, []string{"b", "c"}, coordinator.ErrNoReplicas, "-NOREPLICAS Not enough good replicas to write.\r\n"},
		{nil, []string{"a", "b", "c"}, coordinator.ErrTimeout, "-UNCERTAIN wrote 0 of 3 keys; the first failure was: TIMEOUT not enough replicas answered in time\r\n"},
	} {
		d := newDataDoor(t)
		s := d.session()
		p := startMSetNX(s, args)
		for _, key := range c.taken {
			d.store.put(t, key, "theirs", nil)
		}
		for _, key := range c.failed {
			d.store.mu.fail[key] = c.with
		}
		w := Reply{proto: 2}
		p.finish(&w)
		if string(w.buf) != c.want {
			t.Errorf("taken %q, failed %q: %q, want %q", c.taken, c.failed, w.buf, c.want)
		}
		for _, key := range c.taken {
			if v, _ := d.store.record(key).Winner(0); string(v.Value) != "theirs" {
				t.Errorf("%s was overwritten", key)
			}
		}
	}
}

func TestCopyKeepsTheAbsoluteExpiry(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.lines("SET a 1 PXAT 1800000099999", "+OK\r\n", "COPY a b", ":1\r\n")
	if op := d.store.lastOp(t); op.Expiry != version.ExpiryAt || op.ExpireAtMS != 1800000099999 || op.Cond != version.CondAbsent {
		t.Errorf("wrote %+v", op)
	}
	c.lines("RENAME b c", "+OK\r\n", "PEXPIRETIME c", ":1800000099999\r\n")
}

func TestMovesBetweenSlotsAreForThePlainDoor(t *testing.T) {
	plain := newDataDoor(t).connect()
	cluster := newDataDoor(t, func(c *Config) { c.Door = Cluster }).connect()
	for _, line := range []string{"RENAME a b", "RENAMENX a b", "COPY a b", "MSETNX a 1 b 2"} {
		plain.do("SET", "a", "1")
		if got := plain.line(line); got[0] == '-' {
			t.Errorf("plain: %s: %q", line, got)
		}
		cluster.lines(line, "-"+errCrossSlot+"\r\n")
	}
}

func TestPairsTakeTheLastValueOfAKey(t *testing.T) {
	s := newDataDoor(t).session()
	args := make([][]byte, 0, 7)
	for _, word := range strings.Fields("mset a 1 b 2 a 3") {
		args = append(args, []byte(word))
	}
	if at, fault := s.pairs(args, "mset"); fault != "" || !slices.Equal(at, []int{5, 3}) {
		t.Errorf("got %v, %q", at, fault)
	}
}
