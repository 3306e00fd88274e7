package resp

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
)

// fakeRing notes what it is asked for.
type fakeRing struct {
	edits []RingEdit
	force bool
	asked []string
	fail  error
	done  bool // what is asked for is so
}

func (f *fakeRing) Plan(edits []RingEdit, force bool) (RingPlan, error) {
	f.edits, f.force = edits, force
	if f.fail != nil {
		return RingPlan{}, f.fail
	}
	from, err1 := ring.New(ring.Params{Units: 16}, []ring.Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}, {ID: 3, Weight: 1}})
	to, err2 := ring.New(ring.Params{Units: 16}, []ring.Member{{ID: 1, Weight: 1}, {ID: 2, Weight: 1}, {ID: 3, Weight: 1}, {ID: 4, Weight: 1}})
	return RingPlan{ID: "p1", Plan: ring.NewPlan(from, to, func(int) int64 { return 10 }), Took: 90 * time.Second, Warnings: []string{"mind the gap"}},
		errors.Join(err1, err2)
}

func (f *fakeRing) Apply(id string) (bool, error) {
	f.asked = append(f.asked, "apply "+id)
	return f.done, f.fail
}

func (f *fakeRing) Forget(node string, force bool) (bool, error) {
	f.asked = append(f.asked, fmt.Sprint("forget ", node, " ", force))
	return f.done, f.fail
}

func (f *fakeRing) Finalise() (bool, error) {
	f.asked = append(f.asked, "finalise")
	return f.done, f.fail
}

func (f *fakeRing) Transfers() RingTransfers {
	return RingTransfers{Fields: []Field{{"state", "moving"}}, Transfers: []RingTransfer{{From: 1, To: 4, Partitions: 3, Done: 1, Bytes: 10, BytesTotal: 30, State: "sending"}}}
}

func TestRingPlanReadsEveryKindOfChange(t *testing.T) {
	many := strings.Repeat(" n", maxEdits+1)
	for line, want := range map[string]string{
		"ADD a":                             "add a",
		"add a b REMOVE c force":            "add a, add b, remove c, force",
		"REPLACE a b WEIGHT c 7 ZONE d z-1": "replace a by b, weight c 7, zone d z-1",
		"WEIGHT a 0":                        "weight a 0",
		"WEIGHT a 1001":                     "", "WEIGHT a -1": "", "WEIGHT a x": "", "WEIGHT a": "",
		"REPLACE a": "", "ZONE a": "", "ADD": "", "ADD a REMOVE": "", "a b": "", "FORCE FORCE": "", "PLAN ADD a": "",
		"ADD" + many: "",
	} {
		d := openDoor(t)
		got := d.connect().line("RING PLAN " + line)
		var text []string
		for _, e := range d.ring.edits {
			one := e.Kind.String() + " " + e.Node
			switch e.Kind {
			case ring.Replace:
				one += " by " + e.By
			case ring.Reweigh:
				one += fmt.Sprint(" ", e.Weight)
			case ring.Rezone:
				one += " " + e.Zone
			}
			text = append(text, one)
		}
		if d.ring.force {
			text = append(text, "force")
		}
		if joined := strings.Join(text, ", "); joined != want || (want == "") != strings.HasPrefix(got, "-ERR ") {
			t.Errorf("%s: %q, want %q; answer %q", line, joined, want, got)
		}
	}
}

func TestRingPlanShowsWhatWouldMove(t *testing.T) {
	d := openDoor(t)
	got := d.connect().line("RING PLAN ADD 4")
	for _, want := range []string{"*28\r\n$4\r\nplan\r\n$2\r\np1\r\n", "$6\r\ncopies\r\n$2\r\n12\r\n", "$5\r\nbytes\r\n$3\r\n120\r\n", "$7\r\nseconds\r\n$2\r\n90\r\n",
		"$8\r\nwarnings\r\n*1\r\n$12\r\nmind the gap\r\n", "$5\r\nnodes\r\n*4\r\n*14\r\n", "$4\r\nnode\r\n$16\r\n0000000000000004\r\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q, want %q in it", got, want)
		}
	}
}

func TestRingChangesAreCarriedOutOrExplained(t *testing.T) {
	d := openDoor(t)
	c := d.connect()
	c.expect("+OK\r\n", "RING", "APPLY", "p1")
	c.expect("+OK\r\n", "RING", "FORGET", "a")
	c.expect("+OK\r\n", "RING", "FORGET", "a", "Force")
	c.expect("-ERR syntax error, try RING FORGET node [FORCE]\r\n", "RING", "FORGET", "a", "b")
	c.expect("-ERR wrong number of arguments for 'ring|apply' command\r\n", "RING", "APPLY")
	c.expect("+OK\r\n", "RING", "FINALISE")
	if got := strings.Join(d.ring.asked, "; "); got != "apply p1; forget a false; forget a true; finalise" {
		t.Error(got)
	}
	d.ring.done = true
	c.expect("+OK it is so already\r\n", "RING", "APPLY", "p1")
	c.expect("+OK it is so already\r\n", "RING", "FORGET", "a")
	c.expect("+OK it is so already\r\n", "RING", "FINALISE")
	d.ring.done = false
	if got := c.line("RING TRANSFERS"); !strings.HasPrefix(got, "*4\r\n$5\r\nstate\r\n$6\r\nmoving\r\n$9\r\ntransfers\r\n*1\r\n*14\r\n$4\r\nfrom\r\n") {
		t.Errorf("transfers: %q", got)
	}
	for err, want := range map[error]string{
		ErrNoPlan:    "-ERR this node has no such plan; plans are kept for a while by the node that made them\r\n",
		ErrRingMoved: "-RINGMOVED the ring has changed since the plan was made, plan again\r\n",
		fmt.Errorf("remove 1: %w", ring.ErrUnsafe):    "-UNSAFE remove 1: ring: unsafe change; FORCE overrules\r\n",
		errors.Join(errors.New("a"), errors.New("b")): "-ERR a; b\r\n",
	} {
		d.ring.fail = err
		c.expect(want, "RING", "APPLY", "p1")
		c.expect(want, "RING", "PLAN", "ADD", "x")
		c.expect(want, "RING", "FORGET", "x")
		c.expect(want, "RING", "FINALISE")
	}
	d.ring.fail = fmt.Errorf("%w: node a", ErrMixed)
	c.expect("-MIXED resp: the level cannot be raised: node a\r\n", "RING", "FINALISE")
}

func TestRingStatusTellsWhoComesAndGoes(t *testing.T) {
	for want, m := range map[string]RingMember{
		"joining":    {Alive: true, Moving: "joining"},
		"leaving":    {Alive: true, Moving: "leaving"},
		"recovering": {Alive: true, Recovering: true, Moving: "joining"},
		"down":       {Moving: "leaving", Recovering: true},
		"up":         {Alive: true},
	} {
		if got := stateText(m); got != want {
			t.Errorf("%+v is %s, want %s", m, got, want)
		}
	}
}
