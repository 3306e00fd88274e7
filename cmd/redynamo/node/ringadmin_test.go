package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/resp"
)

// adminRig is a ringAdmin at node 1 of a cluster of which it knows what the test
// says.
type adminRig struct {
	t     *testing.T
	admin *ringAdmin
	state epoch.State
	nodes map[nodeID]membership.NodeInfo
	down  map[nodeID]bool
	clock time.Time
	pace  float64
	fail  error
	saved int
}

func (r *adminRig) Transfers() []resp.RingTransfer {
	return []resp.RingTransfer{
		{From: 1, To: 6, Partitions: 10, Done: 4, Bytes: 40, BytesTotal: 100},
		{From: 2, To: 1, Partitions: 5, Done: 5, Bytes: 7, BytesTotal: 7},
	}
}
func (r *adminRig) Pace() float64 { return r.pace }

const rigUnits = 1024

func buildRing(ms []ring.Member) (*ring.Ring, error) {
	return ring.New(ring.Params{Units: rigUnits, N: 3}, ms)
}

// newAdminRig makes members 1 to so many, in three zones, and a newcomer, 6, that
// is no member.
func newAdminRig(t *testing.T, members int) *adminRig {
	r := &adminRig{t: t, nodes: map[nodeID]membership.NodeInfo{}, down: map[nodeID]bool{}, clock: time.Unix(1000, 0)}
	var records []ring.Record
	for id := nodeID(1); id <= nodeID(members); id++ {
		records = append(records, ring.Record{Member: ring.Member{ID: id, PlaceID: id, Zone: fmt.Sprintf("z%d", id%3), Weight: 100}, Counter: 1, Admin: id})
		r.hear(id)
	}
	r.hear(6)
	r.state = epoch.Settled(1, records)
	rolls := uint64(0)
	r.admin = &ringAdmin{
		self: 1, view: r.view, up: func(id nodeID) bool { return !r.down[id] && r.nodes[id].Alive }, moves: r,
		sizes: func(*ring.Ring) sizes { return sizes{any: true, usual: 100} },
		now:   func() time.Time { return r.clock }, rand: func() uint64 { rolls++; return rolls << 16 },
		apply: func(_ context.Context, records []ring.Record) error {
			if r.fail != nil {
				return r.fail
			}
			r.saved++
			r.state = r.state.Amend(records)
			return nil
		},
	}
	return r
}

// hear makes a node known that is alive.
func (r *adminRig) hear(id nodeID) {
	r.nodes[id] = membership.NodeInfo{ID: id, Alive: true, Zone: fmt.Sprintf("z%d", uint64(id)%3),
		Endpoints: membership.Endpoints{Host: "h", Plain: uint16(7000 + id)}}
}

func (r *adminRig) view() *membership.View {
	r.t.Helper()
	e, err := r.state.View(buildRing)
	if err != nil {
		r.t.Fatal(err)
	}
	return &membership.View{
		Constants: membership.Constants{Units: rigUnits, N: 3}, Self: 1, Established: true, Ring: e.Read(),
		Live: ring.NewLive(e.Read(), e.Target()), Epoch: e, Records: r.state.Target().Records(), Nodes: r.nodes,
	}
}

func add(names ...string) (edits []resp.RingEdit) {
	for _, n := range names {
		edits = append(edits, resp.RingEdit{Kind: ring.Add, Node: n})
	}
	return edits
}

func remove(names ...string) (edits []resp.RingEdit) {
	for _, n := range names {
		edits = append(edits, resp.RingEdit{Kind: ring.Remove, Node: n})
	}
	return edits
}

func TestANodeIsAddedWithTheWeightAndZoneThatItWasStartedWith(t *testing.T) {
	for _, c := range []struct {
		says  int
		edits []resp.RingEdit
		want  ring.Member
	}{
		{250, nil, ring.Member{Weight: 250, Zone: "z0"}},
		{0, nil, ring.Member{Weight: addWeight, Zone: "z0"}},
		{250, []resp.RingEdit{{Kind: ring.Reweigh, Node: "h:7006", Weight: 40}}, ring.Member{Weight: 40, Zone: "z0"}},
		{250, []resp.RingEdit{{Kind: ring.Reweigh, Node: "h:7006"}}, ring.Member{Zone: "z0"}},
		{250, []resp.RingEdit{{Kind: ring.Rezone, Node: "h:7006", Zone: "z9"}}, ring.Member{Weight: 250, Zone: "z9"}},
	} {
		r := newAdminRig(t, 5)
		info := r.nodes[6]
		info.Weight = c.says
		r.nodes[6] = info
		p, err := r.admin.Plan(append(add("h:7006"), c.edits...), true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.admin.Apply(p.ID); err != nil {
			t.Fatal(err)
		}
		if m, _ := r.state.Target().Record(6); m.Weight != c.want.Weight || m.Zone != c.want.Zone {
			t.Errorf("started with %d, added with %v: weight %d, zone %s", c.says, c.edits, m.Weight, m.Zone)
		}
	}
}

func TestAPlanIsShownThenAppliedAndMayBeRepeated(t *testing.T) {
	r := newAdminRig(t, 5)
	r.pace = 10_000
	p, err := r.admin.Plan(add("h:7006"), false)
	if err != nil {
		t.Fatal(err)
	}
	if p.Bytes != 100*int64(p.Replicas) || p.Replicas < 300 || len(p.Nodes) != 6 || len(p.Warnings) != 0 {
		t.Errorf("plan: %+v", p)
	}
	if want := time.Duration(float64(p.Nodes[slices.IndexFunc(p.Nodes, func(s ring.Shift) bool { return s.ID == 6 })].BytesIn) / r.pace * float64(time.Second)); p.Took != want || want < time.Second {
		t.Errorf("takes %v, want %v", p.Took, want)
	}
	if r.saved != 0 {
		t.Fatal("planning changes the ring")
	}
	if already, err := r.admin.Apply(p.ID); already || err != nil {
		t.Fatal(already, err)
	}
	if m, _ := r.state.Target().Record(6); m.Weight != addWeight || m.Zone != "z0" || m.Admin != 1 || m.TimeMS != r.clock.UnixMilli() {
		t.Errorf("record: %+v", m)
	}
	if already, err := r.admin.Apply(p.ID); !already || err != nil || r.saved != 1 {
		t.Errorf("again: %v, %v, %d changes", already, err, r.saved)
	}
	again, err := r.admin.Plan(add("0000000000000006"), true)
	if err != nil || !slices.ContainsFunc(again.Warnings, func(w string) bool { return strings.HasPrefix(w, "nothing is left") }) {
		t.Errorf("a plan of what is so: %v, %v", again.Warnings, err)
	}
	if already, err := r.admin.Apply(again.ID); !already || err != nil {
		t.Errorf("applied: %v, %v", already, err)
	}
}

func TestAPlanOfAnotherRingIsNotApplied(t *testing.T) {
	r := newAdminRig(t, 5)
	one, err1 := r.admin.Plan(add("h:7006"), false)
	two, err2 := r.admin.Plan(remove("h:7002"), false)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.Apply(one.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.Apply(two.ID); !errors.Is(err, resp.ErrRingMoved) || r.saved != 1 {
		t.Errorf("%v, %d changes", err, r.saved)
	}
	r = newAdminRig(t, 5)
	three, err := r.admin.Plan(add("h:7006"), false)
	if err != nil {
		t.Fatal(err)
	}
	r.fail = fmt.Errorf("%w: node 6", membership.ErrNotTaken)
	if _, err := r.admin.Apply(three.ID); !errors.Is(err, resp.ErrRingMoved) {
		t.Error("overtaken while it was applied:", err)
	}
	r.fail = errors.New("disk")
	if _, err := r.admin.Apply(three.ID); !errors.Is(err, r.fail) {
		t.Error(err)
	}
	r.fail = nil
	if already, err := r.admin.Apply(three.ID); already || err != nil {
		t.Error("after the disk is well:", already, err)
	}
}

func TestPlansAreForgottenByNumberAndAge(t *testing.T) {
	r := newAdminRig(t, 5)
	var ids []string
	for range plansKept + 1 {
		p, err := r.admin.Plan(add("h:7006"), false)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, p.ID)
	}
	if _, err := r.admin.Apply(ids[0]); !errors.Is(err, resp.ErrNoPlan) {
		t.Errorf("the oldest of too many: %v", err)
	}
	r.clock = r.clock.Add(planAge)
	if _, found := r.admin.kept(ids[1]); !found {
		t.Error("a plan is gone before its time")
	}
	r.clock = r.clock.Add(time.Millisecond)
	if _, err := r.admin.Apply(ids[1]); !errors.Is(err, resp.ErrNoPlan) || len(r.admin.mu.plans) != 0 {
		t.Errorf("after %v: %v, %d plans are kept", planAge, err, len(r.admin.mu.plans))
	}
}

func TestPlansThatAreNotSafeNeedForce(t *testing.T) {
	for _, c := range []struct {
		name    string
		members int
		edits   []resp.RingEdit
		set     func(*adminRig)
		want    string
		forced  string // error in spite of force
	}{
		{"too few members", 3, remove("h:7003"), nil, "2 members with data would be left", ""},
		{"a dead one leaves", 5, remove("h:7003"), func(r *adminRig) { r.down[3] = true }, "node 0000000000000003 is down: the change waits until it is back", ""},
		{"a dead one is replaced", 5, []resp.RingEdit{{Kind: ring.Replace, Node: "h:7003", By: "h:7006"}}, func(r *adminRig) { r.down[3] = true }, "RING FORGET gives that up", ""},
		{"one that is joining leaves", 5, remove("h:7006"), func(r *adminRig) { r.must(add("h:7006")) }, "the change under way moves node 0000000000000006", ""},
		{"a lone zone is crowded", 5, []resp.RingEdit{{Kind: ring.Remove, Node: "h:7004"}, {Kind: ring.Reweigh, Node: "h:7001", Weight: 10}}, nil, "node 0000000000000001 is to hold more than twice its share", ""},
		{"a stranger is added", 5, add("h:7099"), nil, "unknown node: h:7099; nodes are named by id", "h:7099"},
		{"a stranger is removed", 5, remove("0000000000000099"), nil, "unknown node: 0000000000000099", "0000000000000099"},
		{"one that is no member is removed", 5, remove("h:7006"), nil, "unknown node", "unknown node"},
		{"one that is down is added", 5, add("h:7006"), func(r *adminRig) { delete(r.nodes, 6) }, "unknown node", "unknown node"},
		{"one that was removed is taken back", 5, add("0000000000000003"), func(r *adminRig) { r.must(remove("h:7003")); delete(r.nodes, 3) }, "a removal is not undone", "a removal is not undone"},
		{"replaced by a member", 5, []resp.RingEdit{{Kind: ring.Replace, Node: "h:7003", By: "h:7004"}}, nil, "has a place of its own", "has a place of its own"},
		{"all faults at once", 5, append(add("h:7099"), remove("h:7098")...), nil, "h:7098", "h:7099"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newAdminRig(t, c.members)
			if c.set != nil {
				c.set(r)
			}
			before := r.saved
			_, err := r.admin.Plan(c.edits, false)
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ring.ErrUnsafe) == (c.forced != "") {
				t.Errorf("%v, want %q", err, c.want)
			}
			p, err := r.admin.Plan(c.edits, true)
			if (err == nil) != (c.forced == "") || err != nil && !strings.Contains(err.Error(), c.forced) {
				t.Fatalf("forced: %v, want %q", err, c.forced)
			}
			if err == nil {
				if _, err := r.admin.Apply(p.ID); err != nil || r.saved != before+1 {
					t.Errorf("applied: %v", err)
				}
			}
		})
	}
}

// must plans and applies.
func (r *adminRig) must(edits []resp.RingEdit) {
	r.t.Helper()
	p, err := r.admin.Plan(edits, false)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.admin.Apply(p.ID); err != nil {
		r.t.Fatal(err)
	}
}

func TestAPlanWarnsOfWhatItIsGoodToKnow(t *testing.T) {
	r := newAdminRig(t, 5)
	r.down[4] = true
	r.admin.sizes = func(*ring.Ring) sizes { return sizes{} }
	p, err := r.admin.Plan([]resp.RingEdit{{Kind: ring.Rezone, Node: "h:7003", Zone: "z1"}}, false)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(p.Warnings, "\n")
	for _, want := range []string{"node 0000000000000004 is down, and the change waits", "fewer zones: 1 instead of 2", "cannot tell how much moves"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not said in %q", want, all)
		}
	}
	r = newAdminRig(t, 5)
	r.must(add("h:7006"))
	if p, err = r.admin.Plan(remove("h:7002"), false); err != nil || !strings.Contains(strings.Join(p.Warnings, "\n"), "another change is under way") {
		t.Errorf("%q, %v", p.Warnings, err)
	}
	if p.Took != 0 {
		t.Errorf("takes %v at a pace that nobody knows", p.Took)
	}
}

func TestForgettingIsForTheDead(t *testing.T) {
	r := newAdminRig(t, 5)
	refused := func(name, want string) {
		t.Helper()
		if _, err := r.admin.Forget(name, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("forget %s: %v, want %q", name, err, want)
		}
	}
	refused("h:7001", errMyself.Error())
	refused("h:7099", "unknown node")
	refused("h:7006", "unknown node")
	refused("h:7003", "node 0000000000000003 answers")
	r.down[3] = true
	if already, err := r.admin.Forget("h:7003", false); already || err != nil {
		t.Fatal(already, err)
	}
	if m, _ := r.state.Target().Record(3); !m.Forgotten || !m.Removed || m.Counter != 2 {
		t.Errorf("record: %+v", m)
	}
	if already, err := r.admin.Forget("0000000000000003", false); !already || err != nil {
		t.Errorf("again: %v, %v", already, err)
	}
	r.down[4] = true
	refused("h:7004", "was forgotten too, and what it held has not been copied yet")
	r.down[5] = true
	refused("h:7004", "node 0000000000000005 is down too")
	if _, err := r.admin.Forget("h:7004", true); err != nil {
		t.Errorf("forced: %v", err)
	}
	refused("h:7005", "2 members with data would be left")
}

func TestAnAddressOfSeveralNodesIsThatOfTheLivingOne(t *testing.T) {
	r := newAdminRig(t, 5)
	moved := r.nodes[2]
	moved.ID, moved.Alive = 4, false
	r.nodes[4] = moved
	if id, err := resolve(r.view(), "h:7002", isMember); id != 2 || err != nil {
		t.Error(id, err)
	}
	moved.Alive = true
	r.nodes[4] = moved
	if _, err := resolve(r.view(), "h:7002", isMember); err == nil || !strings.Contains(err.Error(), "[0000000000000002 0000000000000004]") {
		t.Error(err)
	}
}

func TestProgressIsToldStepByStep(t *testing.T) {
	r := newAdminRig(t, 3)
	fields := func() string {
		var b strings.Builder
		for _, f := range r.admin.Transfers().Fields {
			if f.Name != "target-epoch" {
				fmt.Fprintf(&b, "%s=%s ", f.Name, f.Value)
			}
		}
		return b.String()
	}
	if got := fields(); got != "state=stable " {
		t.Errorf("at rest: %q", got)
	}
	r.must(add("h:7006"))
	for _, want := range []string{"state=announcing nodes=4 nodes-acked=0 ", "waits-for=0000000000000001 0000000000000002 0000000000000003 0000000000000006 ",
		"partitions=10 partitions-done=4 bytes=40 bytes-total=100 ", "change=announcing, waits for 4 of 4 nodes "} {
		if got := fields(); !strings.Contains(got, want) {
			t.Errorf("begun: %q, want %q in it", got, want)
		}
	}
	others := []epoch.State{epoch.New(2, nil), epoch.New(3, nil), epoch.New(6, nil)}
	r.state = r.state.Advance(epoch.Local{Drained: 1 << 30})
	for i := range others {
		others[i] = others[i].Merge(r.state).Advance(epoch.Local{Drained: 1 << 30})
		r.state = r.state.Merge(others[i])
	}
	r.state = r.state.Advance(epoch.Local{Drained: 1 << 30})
	if got := fields(); !strings.Contains(got, "state=moving nodes=4 nodes-acked=4 nodes-synced=0 ") {
		t.Errorf("acked: %q", got)
	}
	v := r.view()
	if got := movingText(v, 6) + " " + movingText(v, 1) + stepText(v, 1); got != "joining acked" {
		t.Error(got)
	}
}

func TestAForgottenOrLeftNodeIsKnown(t *testing.T) {
	r := newAdminRig(t, 5)
	if v := r.view(); hasLeft(v) || v.Epoch.Forgotten {
		t.Error("a member has left")
	}
	gone := ring.Record{Member: ring.Member{ID: 1, Weight: 100}, Counter: 2, Removed: true}
	records := append([]ring.Record{gone}, r.state.Target().Records()[1:]...)
	r.state = epoch.Settled(1, records)
	if hasLeft(r.view()) {
		t.Error("a node may go before a member says so")
	}
	r.state = r.state.Merge(epoch.Settled(2, records))
	if !hasLeft(r.view()) {
		t.Error("a node that left is a member")
	}
	gone.Forgotten = true
	r.state = epoch.Settled(1, append([]ring.Record{gone}, r.state.Target().Records()[1:]...))
	if !r.view().Epoch.Forgotten {
		t.Error("a forgotten node is not told")
	}
}

func TestPartitionSizesAreGuessedFromWhatIsHere(t *testing.T) {
	cfg := lone(vfs.NewCrashableMem())
	cfg.Fsync = storage.FsyncInterval
	n := start(t, cfg)
	r := n.members.View().Ring
	if s := n.partitionSizes(r); !s.any || s.bytesOf(0) != 0 {
		t.Errorf("without keys: %+v", s.usual)
	}
	for i := range 100 {
		if got := say(t, n, fmt.Sprintf("SET {a}%d %s", i, strings.Repeat("x", 1000))); got != "+OK" {
			t.Fatal(got)
		}
	}
	s := n.partitionSizes(r)
	full := r.Partition(ring.SlotOf([]byte("{a}0")))
	if got := s.bytesOf(full); got < 100*1000 || got > 120*1000 {
		t.Errorf("100 values of 1000 bytes are taken for %d bytes", got)
	}
	if got := s.bytesOf((full + 1) % r.Units()); got != 0 {
		t.Errorf("an empty partition is taken for %d bytes", got)
	}
	if got := s.bytesOf(r.Units() + 1); got != s.usual || got < 90 || got > 120 {
		t.Errorf("an unknown partition is taken for %d bytes", got)
	}
}
