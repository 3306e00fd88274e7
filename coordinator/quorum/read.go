package quorum

import (
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/version"
)

// Verdict says whether a request has its answer.
type Verdict uint8

// The verdicts. Only Pending is ever left for another.
const (
	Pending    Verdict = iota
	Met                // enough nodes answered
	Impossible         // not enough nodes are left that could still answer
	Stale              // enough answered, but nobody left to ask covers the minimum
)

// Mode says how much of a copy is asked for.
type Mode uint8

// The modes of an Ask.
const (
	Whole    Mode = iota // the record
	Digest               // only its state hash
	IfDiffer             // the record, unless its state hash is Ask.Have
)

// Ask is one question to one node.
type Ask struct {
	Index int // names the question to Reply and Fail
	Stand ring.Stand
	Mode  Mode
	Have  uint64
}

// Reply is the answer to an Ask: Same, a Hash alone (to a Digest), or a record
// with its hash. Hash 0 is an absent key.
//
// A Recovering node has lost writes that it had acknowledged, and answers
// every question with its whole copy. What it has is true and is joined; what it
// lacks proves nothing, so it is none of those that must answer.
type Reply struct {
	Same       bool
	Recovering bool
	Hash       uint64
	Record     version.Record
}

// Read is the state of one read. The zero value must be Reset before use; it
// may be used again and keeps its storage.
type Read struct {
	need  int
	extra int             // nodes asked beyond need: hedges and escalation
	min   version.Context // the answer must cover it
	wrote *version.Wrote  // and have this in it, if it is set
	whole bool            // ask everybody for whole copies
	nowMS int64           // by the caller's clock; 0: no copy is hollow

	cands   []candidate
	asked   int  // cands[:asked] were asked
	spared  bool // the spares have been given, or there are none
	spares  []ring.NodeID
	orphans []ring.NodeID // owners whose candidates failed or are mute, to be stood in for
	walk    int           // cands[:walk] were given, the others were spares

	have   bool // a copy has come
	record version.Record
	hash   uint64

	verdict Verdict
}

type candState uint8

const (
	unasked candState = iota
	asked             // a question is out
	hashed            // answered with the hash of its copy alone
	copied            // answered with its copy, which is in the record
	doubted           // the same, but the node is recovering
	failed
)

type candidate struct {
	stand  ring.Stand
	state  candState
	mode   Mode
	hollow bool            // its copy lacks a payload whose time is not over
	hash   uint64          // state hash of its copy; while asked, what was offered
	knows  version.Context // of its copy, once that has come
}

// Reset begins a read that needs answers from need nodes. cands are the nodes
// in the order of preference, owners before fallbacks, no node twice. With a
// minimum the answer must cover it, and every copy is asked for whole: equal
// state hashes promise equal values, not equal contexts.
func (r *Read) Reset(need int, min version.Context, cands []ring.Stand) {
	clear(r.cands) // they may hold on to contexts
	*r = Read{
		need: need, min: min, whole: len(min) > 0,
		cands: r.cands[:0], spares: r.spares[:0], orphans: r.orphans[:0],
	}
	for _, s := range cands {
		r.cands = append(r.cands, candidate{stand: s})
	}
	r.walk = len(r.cands)
	r.judge()
}

// Expect has the answer have a write in it, as if its context were the minimum.
// Requires: nothing was asked yet.
func (r *Read) Expect(w *version.Wrote) { r.wrote, r.whole = w, true }

// Clock says what time it is, in Unix milliseconds. A copy that lacks a payload
// whose time is not over then has others asked for it, whatever their hash says,
// before the read is decided: no node's clock takes a live value from the others.
func (r *Read) Clock(nowMS int64) { r.nowMS = nowMS }

// Verdict says whether the read is decided.
func (r *Read) Verdict() Verdict { return r.verdict }

// Record is the join of the copies that came; after Met it is the answer.
func (r *Read) Record() version.Record { return r.record }

// Fallback reports whether a fallback is among the nodes that answered.
func (r *Read) Fallback() bool {
	return slices.ContainsFunc(r.cands, func(c candidate) bool {
		return c.stand.For != 0 && r.settled(&c)
	})
}

// Next returns the next question to put, if there is one.
func (r *Read) Next() (Ask, bool) {
	if r.verdict != Pending {
		return Ask{}, false
	}
	if i := r.differing(); i >= 0 {
		return r.ask(i, r.fullMode()), true
	}
	if r.hollow() {
		if i := r.hashedOnly(); i >= 0 {
			return r.ask(i, Whole), true
		}
	}
	if r.hopes() >= r.need+r.extra {
		return Ask{}, false
	}
	if r.asked == len(r.cands) && !r.recruit() {
		return Ask{}, false
	}
	i := r.asked
	r.asked++
	return r.ask(i, r.mode()), true
}

// settled reports whether what a node has is in the record. A hash alone says
// so only while it is the hash of the record: the node's context, which it does
// not tell, might cover versions that other copies brought.
func (r *Read) settled(c *candidate) bool {
	return c.state == copied || c.state == hashed && (c.hash == 0 || r.have && c.hash == r.hash)
}

// mute reports whether a node stands in for an owner and has nothing of the key.
// It would not, had the key been written while its owners were all there.
func mute(c *candidate) bool {
	return c.stand.For != 0 && c.hash == 0 && (c.state == hashed || c.state == copied)
}

// vouched reports whether mute nodes count: an owner has told what it has, or
// somebody has a record of the key.
func (r *Read) vouched() bool {
	return r.have && r.hash != 0 || slices.ContainsFunc(r.cands, func(c candidate) bool {
		return c.stand.For == 0 && r.settled(&c)
	})
}

// NoOwner reports whether the read lacks an owner: only stand-ins answered, and
// none of them has anything.
func (r *Read) NoOwner() bool {
	return r.mutes() > 0 && !r.vouched()
}

// ownerOut reports whether an owner has a question.
func (r *Read) ownerOut() bool {
	return slices.ContainsFunc(r.cands, func(c candidate) bool { return c.stand.For == 0 && c.state == asked })
}

// mutes counts the mute nodes.
func (r *Read) mutes() int {
	n := 0
	for i := range r.cands {
		if mute(&r.cands[i]) {
			n++
		}
	}
	return n
}

// differing finds a node whose copy is wanted because it is not settled by its
// hash, once no whole copy is on its way that might settle it.
func (r *Read) differing() int {
	if !r.have && r.wholeOut() {
		return -1
	}
	return slices.IndexFunc(r.cands, func(c candidate) bool { return c.state == hashed && !r.settled(&c) })
}

// hollow reports whether a payload is missing that another node may have.
func (r *Read) hollow() bool { return r.nowMS != 0 && r.have && r.record.Hollow(r.nowMS) }

// hashedOnly finds a node whose copy has not come, since its hash settled it.
func (r *Read) hashedOnly() int {
	return slices.IndexFunc(r.cands, func(c candidate) bool { return c.state == hashed && c.hash != 0 })
}

// wholeOut reports whether a whole copy is on its way.
func (r *Read) wholeOut() bool {
	return slices.ContainsFunc(r.cands, func(c candidate) bool {
		return c.state == asked && c.mode != Digest
	})
}

// mode is how to ask a node not asked before. A hedge asks for the whole copy:
// the one on its way is late.
func (r *Read) mode() Mode {
	if !r.have && !r.whole && r.extra == 0 && r.wholeOut() {
		return Digest
	}
	return r.fullMode()
}

func (r *Read) fullMode() Mode {
	if r.have && !r.whole && !r.hollow() {
		return IfDiffer
	}
	return Whole
}

func (r *Read) ask(i int, m Mode) Ask {
	c := &r.cands[i]
	c.state, c.mode = asked, m
	a := Ask{Index: i, Stand: c.stand, Mode: m}
	if m == IfDiffer {
		a.Have = r.hash
		c.hash = r.hash
	}
	return a
}

// hopes counts the nodes that have answered or still may. Mute ones are none if
// nobody vouches for them, and no owner is left that has been asked.
func (r *Read) hopes() int {
	n := -r.mutes()
	if n < 0 && (r.vouched() || r.ownerOut()) {
		n = 0
	}
	for i := range r.cands[:r.asked] {
		if s := r.cands[i].state; s != failed && s != doubted {
			n++
		}
	}
	return n
}

// recruit makes one spare a candidate, standing in for an owner whose
// candidate failed.
func (r *Read) recruit() bool {
	for len(r.orphans) > 0 && len(r.spares) > 0 {
		s := ring.Stand{Node: r.spares[0], For: r.orphans[0]}
		r.spares = r.spares[1:]
		if r.knows(s.Node) {
			continue
		}
		r.orphans = r.orphans[1:]
		r.cands = append(r.cands, candidate{stand: s})
		return true
	}
	return false
}

func (r *Read) knows(node ring.NodeID) bool {
	return slices.ContainsFunc(r.cands, func(c candidate) bool { return c.stand.Node == node })
}

// NeedsSpares reports that the read cannot go on before Spares is called.
func (r *Read) NeedsSpares() bool {
	return r.verdict == Pending && !r.spared && len(r.orphans) > 0 &&
		r.asked == len(r.cands) && r.hopes() < r.need
}

// Spares gives the live fallbacks in ring order; those that are candidates
// already are skipped. Only the first call counts.
func (r *Read) Spares(nodes []ring.NodeID) {
	if r.spared {
		return
	}
	r.spared = true
	for _, n := range nodes {
		if !r.knows(n) {
			r.spares = append(r.spares, n)
		}
	}
	r.judge()
}

// Reply records the answer to an Ask.
func (r *Read) Reply(index int, a Reply) {
	c := &r.cands[index]
	c.knows = a.Record.Context
	c.hollow = r.nowMS != 0 && a.Record.Hollow(r.nowMS)
	switch {
	case a.Recovering:
		c.state, c.hash = doubted, a.Hash
		r.join(a)
		r.replaceHedge()
	case a.Same:
		c.state = hashed // and c.hash is what was offered
	case c.mode == Digest:
		c.state, c.hash = hashed, a.Hash
	default:
		c.state, c.hash = copied, a.Hash
		r.join(a)
	}
	if mute(c) && index < r.walk { // a spare that is mute is followed by none: the walk has an end
		r.orphans = append(r.orphans, c.stand.For)
	}
	r.judge()
}

// join takes a whole copy in. Copies of equal state can differ in their
// contexts, so they are joined too.
func (r *Read) join(a Reply) {
	switch {
	case !r.have || r.hash == 0:
		r.record, r.hash, r.have = a.Record, a.Hash, true
	case a.Hash == 0:
	case a.Hash == r.hash:
		r.record = version.Merge(r.record, a.Record)
	default:
		r.record = version.Merge(r.record, a.Record)
		r.hash = r.record.StateHash()
	}
}

// Fail records that an Ask has no answer and never will.
func (r *Read) Fail(index int) {
	c := &r.cands[index]
	c.state = failed
	r.orphans = append(r.orphans, ownerOf(c.stand))
	r.replaceHedge()
	r.judge()
}

// replaceHedge is for a node that will not count: the hedge, if there is one,
// has become its replacement.
func (r *Read) replaceHedge() {
	if r.extra > 0 && !r.whole {
		r.extra--
	}
}

// ownerOf is the owner whose copy a stand has or stands in for.
func ownerOf(s ring.Stand) ring.NodeID {
	if s.For != 0 {
		return s.For
	}
	return s.Node
}

// Hedgeable reports whether an owner is left that Hedge would ask.
func (r *Read) Hedgeable() bool {
	return r.verdict == Pending && r.asked < len(r.cands) && r.cands[r.asked].stand.For == 0
}

// Hedge asks one owner more than needed, because those asked are slow.
func (r *Read) Hedge() {
	if r.Hedgeable() {
		r.extra++
	}
}

// judge brings the verdict up to date.
func (r *Read) judge() {
	if r.verdict != Pending {
		return
	}
	answered := 0
	for i := range r.cands {
		if r.settled(&r.cands[i]) {
			answered++
		}
	}
	left := r.hopes() + len(r.cands) - r.asked + r.reserve()
	if n := r.mutes(); n > 0 && !r.vouched() {
		answered -= n
		if left > 0 && !r.ownerOut() {
			left += n // whoever is left may vouch for them
		}
	}
	switch {
	case answered >= r.need && r.hollow() && r.refill():
	case answered >= r.need && r.record.Context.Covers(r.min) && (r.wrote == nil || r.wrote.In(r.record)):
		r.verdict = Met
	case answered >= r.need:
		r.escalate()
	case left < r.need:
		r.verdict = Impossible
	}
}

// refill asks one node more, because a payload is missing; false: nobody is left
// to be asked.
func (r *Read) refill() bool {
	switch busy := slices.ContainsFunc(r.cands, func(c candidate) bool { return c.state == asked }); {
	case busy, r.hashedOnly() >= 0:
		return true
	case r.asked < len(r.cands):
		r.extra = r.hopes() + 1 - r.need
		return true
	}
	return false
}

// escalate asks one node more, because those that answered do not cover the
// minimum, or have not the write that is looked for.
func (r *Read) escalate() {
	switch busy := slices.ContainsFunc(r.cands, func(c candidate) bool { return c.state == asked }); {
	case busy:
	case r.asked < len(r.cands):
		r.extra = r.hopes() + 1 - r.need
	default:
		r.verdict = Stale
	}
}

// reserve counts the spares that can still become candidates; before they are
// known, as many as there are owners to stand in for, or will be if nodes of the walk
// turn out to be mute.
func (r *Read) reserve() int {
	n := len(r.orphans)
	for i := range r.cands[:r.walk] {
		if c := &r.cands[i]; c.stand.For != 0 && (c.state == asked || c.state == unasked) {
			n++
		}
	}
	if !r.spared {
		return n
	}
	return min(n, len(r.spares))
}

// Repair is an owner that holds less than the record.
type Repair struct {
	Node  ring.NodeID
	Since version.HLC // of the oldest version that it lacks; 0 if that is not known
}

// Repairs appends to dst the owners known to hold less than the record: they
// answered with another state. Fallbacks are never repaired; they would fill
// up with everything that is read during an outage.
func (r *Read) Repairs(dst []Repair) []Repair {
	if r.verdict != Met || r.hash == 0 {
		return dst
	}
	for i := range r.cands {
		c := &r.cands[i]
		filled := c.hollow && !r.hollow()
		if (c.state == copied || c.state == hashed || c.state == doubted) && c.stand.For == 0 && (c.hash != r.hash || filled) {
			dst = append(dst, Repair{Node: c.stand.Node, Since: r.lacks(c)})
		}
	}
	return dst
}

// lacks is the clock of the oldest version of the record that a node does not
// know. A node whose copy has not come is known to lack all if it has none.
func (r *Read) lacks(c *candidate) version.HLC {
	if len(c.knows) == 0 && c.hash != 0 {
		return 0
	}
	oldest := version.HLC(0)
	for i := range r.record.Versions {
		v := &r.record.Versions[i]
		if !c.knows.Contains(v.Dot) && (oldest == 0 || v.HLC < oldest) {
			oldest = v.HLC
		}
	}
	return oldest
}
