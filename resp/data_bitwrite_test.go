package resp

import (
	"slices"
	"strings"
	"testing"

	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/replica/version"
)

// olderAdmin is of a cluster in which some programs are one level back.
type olderAdmin struct{ dataAdmin }

func (olderAdmin) Level() uint16 { return fieldsLevel - 1 }

func TestBitsAreNotWrittenWhereOlderProgramsRun(t *testing.T) {
	d := newDataDoor(t, func(c *Config) { c.Admin = olderAdmin{} })
	c := d.connect()
	for _, command := range []string{"SETBIT k 1 1", "BITFIELD k SET u8 0 1", "BITFIELD k GET u8 0"} {
		if got := c.line(command); !strings.HasPrefix(got, "-ERR '"+strings.ToLower(strings.Fields(command)[0])+"' is not served before") {
			t.Errorf("%s: got %q", command, got)
		}
	}
	c.line("SET k a")
	for command, want := range map[string]string{"GETBIT k 1": ":1\r\n", "BITFIELD_RO k GET u8 0": "*1\r\n:97\r\n", "BITOP NOT d k": ":1\r\n"} {
		if got := c.line(command); got != want {
			t.Errorf("%s: got %q", command, got)
		}
	}
}

func TestBitsAreWrittenInOneStep(t *testing.T) {
	d := newDataDoor(t)
	c := d.connect()
	c.line("SET k a")
	for command, fields := range map[string][]version.Field{
		"SETBIT k 9 1": {{Op: version.FieldSet, Bits: 1, Offset: 9, Number: 1}},
		"BITFIELD k GET i5 3 OVERFLOW SAT INCRBY u8 #1 -2": {
			{Op: version.FieldGet, Signed: true, Bits: 5, Offset: 3},
			{Op: version.FieldIncr, Overflow: version.OverflowSaturate, Bits: 8, Offset: 8, Number: -2}},
	} {
		c.line(command)
		op := d.store.lastOp(t)
		got, err := version.DecodeFields(op.Value)
		if err != nil || op.Kind != version.OpFields || op.MaxValue != mib || !slices.Equal(got, fields) {
			t.Errorf("%s: %+v: %+v, %v", command, op, got, err)
		}
	}
}

// lyingStore answers writes with something that no coordinator would.
type lyingStore struct{ *dataStore }

func (s lyingStore) Write(_ []byte, _ version.Op, _ coordinator.WriteOptions, done func(coordinator.WriteResult, error)) {
	done(coordinator.WriteResult{Outcome: version.Outcome{Applied: true, Old: []byte{9}}}, nil)
}

func TestAnswersOfFieldsAreNotTrusted(t *testing.T) {
	d := newDataDoor(t, func(c *Config) { c.Store = lyingStore{c.Store.(*dataStore)} })
	if got := d.connect().line("SETBIT k 1 1"); got != "-"+errInternal+"\r\n" {
		t.Errorf("got %q", got)
	}
}

// Between the reads of a BITOP and its write somebody else writes the destination.
// If that is a source, both results stay.
func TestBitOpOverASourceLosesNothingThatItHasNotRead(t *testing.T) {
	for command, siblings := range map[string]int{"BITOP OR k k j": 2, "BITOP OR k j j": 1} {
		d := newDataDoor(t, func(c *Config) {
			store := c.Store.(*dataStore)
			c.Store = &betweenStore{dataStore: store, writes: 2, step: func() { store.put(t, "k", "other", store.record("k").Context) }}
		})
		c := d.connect()
		c.line("SET k a")
		c.line("SET j b")
		if got := c.line(command); got != ":1\r\n" {
			t.Errorf("%s: got %q", command, got)
		}
		if got := len(d.store.record("k").Versions); got != siblings {
			t.Errorf("%s left %d versions, want %d", command, got, siblings)
		}
	}
}

// betweenStore takes some writes and does a step before the next.
type betweenStore struct {
	*dataStore
	writes int
	step   func()
}

func (s *betweenStore) Write(key []byte, op version.Op, o coordinator.WriteOptions, done func(coordinator.WriteResult, error)) {
	if s.writes--; s.writes < 0 {
		s.step()
	}
	s.dataStore.Write(key, op, o, done)
}

func TestBitOpOfAFailedReadWritesNothing(t *testing.T) {
	d := newDataDoor(t)
	d.store.mu.fail["j"] = coordinator.ErrNoReadQuorum
	c := d.connect()
	if got := c.line("BITOP OR d k j"); !strings.HasPrefix(got, "-NOREPLICAS") {
		t.Errorf("got %q", got)
	}
	if !d.store.record("d").Absent() {
		t.Error("something was written")
	}
}
