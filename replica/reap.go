package replica

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/redynamo/redynamo/membership/ring"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
)

// This file drops what is left of keys without a value: tombstones, and records
// whose versions are all expired. Dropped too early, a tombstone lets an old
// version come back from whoever still has it, so none is ever dropped by age, but
// by proof that nobody has one:
//
//  1. Every other owner has had a session with this node that began after the
//     record was seen here in its present state. Each of them then had that state,
//     or one that covers it, on its disk.
//  2. A message is carried out no later than MessageAge after what it says was read
//     from a disk (see package rpc), and that long was waited since.
//  3. After that, no member of the cluster keeps a hint for the partition, and none
//     has kept one for longer than MessageAge. What a hint said can go from node to
//     node by a read and a write of it; so there is a moment at which nobody had
//     one, and what had been read from the last of them was carried out. MessageAge
//     is waited once more after the answers, which were given one after the other.
//  4. The clock that says so may stand still, on a paused machine. So every member
//     has been connected to this node without a break, and answers, all that time.
//
// Whatever is older than the tombstone would have to be in one of these places. An
// owner or a member that is away blocks the proof; being removed from the ring
// ends that.
//
// One place is left that no node can ask: a copy of a data directory that somebody
// puts back later. So a grave is also kept for RestoreWindow; a copy that is
// younger can be put back and brings no deleted key with it.

// Proof is what a Reaper rests on. Its methods may block.
type Proof interface {
	// Rings names the rings that are in force; false while they change. What was proven
	// under others is proven no more: who was no owner then may be one.
	Rings() (name uint64, ok bool)
	// Settled reports whether every other owner of a partition has had a session
	// with this node that began after since. If not, missing is one that has not.
	Settled(partition int, since time.Time) (missing ring.NodeID, ok bool)
	// HintFree returns those of the partitions for which no member of the cluster
	// keeps a hint or has kept one of late, as the head of this file says. It answers
	// an error, naming the member, unless all could be asked and believed.
	HintFree(ctx context.Context, partitions []int) ([]int, error)
}

// ReapConfig configures a Reaper. The zero value of a field means the default
// written beside it.
type ReapConfig struct {
	Interval   time.Duration // between two looks; 10 s
	MessageAge time.Duration // no message between nodes arrives later; 60 s

	// RestoreWindow is how old a copy of a data directory may be when it is put
	// back. Default: 24 h; negative: no copies are put back.
	RestoreWindow time.Duration

	// Pace waits until some graves may be looked at or dropped; end is called when
	// they are. Default: at once.
	Pace func(ctx context.Context) (end func(), err error)

	// Refill is told of a key whose payload is gone here before its time, by a clock
	// that was ahead or an extension that came late: another owner may have it. It
	// must not block. Default: nobody.
	Refill func(key []byte)

	Batch      int // graves looked at in one interval; 4096
	Candidates int // graves that are waited for at once; 65536
}

func (c ReapConfig) withDefaults() ReapConfig {
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.MessageAge == 0 {
		c.MessageAge = time.Minute
	}
	if c.RestoreWindow == 0 {
		c.RestoreWindow = 24 * time.Hour
	}
	if c.Pace == nil {
		c.Pace = func(context.Context) (func(), error) { return func() {}, nil }
	}
	if c.Refill == nil {
		c.Refill = func([]byte) {}
	}
	if c.Batch == 0 {
		c.Batch = 4096
	}
	if c.Candidates == 0 {
		c.Candidates = 65536
	}
	return c
}

func (c ReapConfig) validate() error {
	if c.Interval < 0 || c.MessageAge < 0 || c.Batch < 0 || c.Candidates < 0 {
		return fmt.Errorf("replica: reaper: interval (%v), message age (%v), batch (%d) and candidates (%d) must be positive",
			c.Interval, c.MessageAge, c.Batch, c.Candidates)
	}
	return nil
}

// Reaper drops what is left of keys without a value.
type Reaper struct {
	r     *Replica
	cfg   ReapConfig
	proof Proof

	mu struct {
		sync.Mutex
		graves map[string]*grave
		block  string // why the last ripe ones could not be dropped
	}
	from []byte // the row at which the next look begins; nil: the first
}

// grave is a record that may be dropped, as it was first seen.
type grave struct {
	slot   ring.Slot
	hash   uint32
	state  uint64 // the WholeHash: what a stub knows of other versions counts too
	seen   time.Time
	proven time.Time // when the owners were known to agree; zero: not yet
	free   time.Time // when no hint was kept, of those that are proven; zero: not yet
	rings  uint64    // in force when it was proven
	lacks  ring.NodeID
}

// NewReaper makes a Reaper of r's rows.
func NewReaper(r *Replica, cfg ReapConfig, proof Proof) (*Reaper, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	p := &Reaper{r: r, cfg: cfg, proof: proof}
	p.mu.graves = map[string]*grave{}
	return p, nil
}

// Run looks for what can be dropped until ctx ends, and returns nil then.
func (p *Reaper) Run(ctx context.Context) error {
	p.r.repeat(ctx, p.cfg.Interval, "reaping", p.step)
	return nil
}

// step is one look.
func (p *Reaper) step(ctx context.Context) error {
	if err := p.collect(ctx); err != nil {
		return err
	}
	now := time.Now()
	p.prove(now)
	return p.drop(ctx, now)
}

// collect looks at the next graves and takes down their present states.
func (p *Reaper) collect(ctx context.Context) error {
	var rows []graveRow
	young := p.r.cfg.Now().Add(-p.cfg.RestoreWindow).UnixMilli()
	lo, hi := storage.AllGraves()
	if p.from != nil {
		lo = p.from
	}
	seen := 0
	p.from = nil
	err := p.r.store.Scan(lo, hi, func(row, since []byte) bool {
		if seen++; seen > p.cfg.Batch {
			p.from = bytes.Clone(row)
			return false
		}
		rows = append(rows, graveRow{bytes.Clone(row), sinceMS(since) <= young})
		return true
	})
	if err != nil && !errors.Is(err, storage.ErrHole) { // that is told at the end; the Mender brings back what is missing
		return err
	}
	for some := range slices.Chunk(rows, pacedGraves) {
		if err := p.look(ctx, some); err != nil {
			return err
		}
	}
	return nil
}

// graveRow is a row of the index of graves.
type graveRow struct {
	row []byte
	old bool // older than the restore window
}

// pacedGraves is how many graves are looked at before Pace is asked again.
const pacedGraves = 128

// sighting is what was read of one grave.
type sighting struct {
	key      string
	grave    grave
	reapable bool
}

// look takes down the present states of some graves. What was read may still be
// queued, and a session compares what is committed: so the states count as seen
// only once they are.
func (p *Reaper) look(ctx context.Context, rows []graveRow) error {
	end, err := p.cfg.Pace(ctx)
	if err != nil {
		return err
	}
	defer end()
	nowMS := p.r.cfg.Now().UnixMilli()
	found := make([]sighting, 0, len(rows))
	for _, g := range rows {
		slot, hash, key, ok := storage.ParseGraveKey(g.row)
		if !ok {
			continue
		}
		rec, _, _, err := p.r.Read(key, 0)
		if errors.Is(err, version.ErrCorrupt) {
			continue // counted; nobody knows what it says
		}
		if errors.Is(err, ErrFenced) || err == nil && rec.Absent() {
			if err := p.r.dropStray(key, hash); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if rec.Hollow(nowMS) {
			p.cfg.Refill(bytes.Clone(key))
		}
		found = append(found, sighting{string(key), grave{slot: slot, hash: hash, state: rec.WholeHash()}, g.old && reapable(rec, nowMS)})
	}
	if err := p.r.drained(ctx); err != nil {
		return err
	}
	for _, s := range found {
		p.note(s.key, s.grave, s.reapable)
	}
	return nil
}

// note takes down a grave, or forgets it.
func (p *Reaper) note(key string, g grave, reapable bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.mu.graves[key]
	switch {
	case !reapable:
		delete(p.mu.graves, key)
	case known != nil && known.state == g.state:
	case known != nil || len(p.mu.graves) < p.cfg.Candidates:
		g.seen = time.Now()
		p.mu.graves[key] = &g
	}
}

// prove asks which graves the owners agree on.
func (p *Reaper) prove(now time.Time) {
	rings, ok := p.proof.Rings()
	if !ok {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.mu.graves {
		if !g.proven.IsZero() {
			continue
		}
		var ok bool
		if g.lacks, ok = p.proof.Settled(p.r.partition(g.slot), g.seen); ok {
			g.proven, g.rings = now, rings
		}
	}
}

// drop asks about the hints of the graves that have been proven for long enough,
// and drops those that no message of a hint can bring back any more.
func (p *Reaper) drop(ctx context.Context, now time.Time) error {
	if err := p.askHints(ctx, now); err != nil {
		return err
	}
	ripe := p.ripe(now)
	if len(ripe) == 0 {
		return nil
	}
	for key, g := range ripe {
		end, err := p.cfg.Pace(ctx)
		if err != nil {
			return err
		}
		if rings, ok := p.proof.Rings(); !ok || rings != g.rings {
			p.unprove(key)
			end()
			continue
		}
		err = p.r.reap(key, g)
		end()
		if err != nil && !errors.Is(err, ErrFenced) && !errors.Is(err, version.ErrCorrupt) {
			return err
		}
		p.mu.Lock()
		delete(p.mu.graves, key)
		p.mu.Unlock()
	}
	return p.r.drained(ctx)
}

// unprove lets the proof of a grave begin anew.
func (p *Reaper) unprove(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.mu.graves[key]; g != nil {
		g.proven, g.free = time.Time{}, time.Time{}
	}
}

// askHints asks for which of the proven graves no hint is kept.
func (p *Reaper) askHints(ctx context.Context, now time.Time) error {
	parts := p.hinted(now)
	if len(parts) == 0 {
		return nil
	}
	free, err := p.proof.HintFree(ctx, parts)
	p.blocked(err, len(parts)-len(free))
	if err != nil {
		return nil // somebody is away: told by Why, and by whoever watches nodes
	}
	answered := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.mu.graves {
		if p.asksHints(g, now) && slices.Contains(free, p.r.partition(g.slot)) {
			g.free = answered
		}
	}
	return nil
}

// asksHints reports whether the hints are what a grave waits for.
func (p *Reaper) asksHints(g *grave, now time.Time) bool {
	return !g.proven.IsZero() && now.Sub(g.proven) >= p.cfg.MessageAge && g.free.IsZero()
}

// hinted returns the partitions of the graves that wait for hints.
func (p *Reaper) hinted(now time.Time) (parts []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[int]bool{}
	for _, g := range p.mu.graves {
		if part := p.r.partition(g.slot); p.asksHints(g, now) && !seen[part] {
			seen[part] = true
			parts = append(parts, part)
		}
	}
	return parts
}

// ripe returns the graves that nothing is left to wait for.
func (p *Reaper) ripe(now time.Time) map[string]grave {
	p.mu.Lock()
	defer p.mu.Unlock()
	ripe := map[string]grave{}
	for key, g := range p.mu.graves {
		if !g.free.IsZero() && now.Sub(g.free) >= p.cfg.MessageAge {
			ripe[key] = *g
		}
	}
	return ripe
}

// blocked notes what stood in the way of the last ripe graves.
func (p *Reaper) blocked(err error, hinted int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.block = ""
	switch {
	case err != nil:
		p.mu.block = err.Error()
	case hinted > 0:
		p.mu.block = "hints are kept for its partition, or were of late"
	}
}

// Why says what the record of a key without a value still waits for; "" if it is
// none, or is gone.
func (p *Reaper) Why(key []byte) string {
	rec, _, _, err := p.r.Read(key, 0)
	if err != nil || !bare(rec) {
		return ""
	}
	since, err := p.r.store.Get(storage.AppendGraveKey(nil, ring.SlotOf(key), ring.KeyHash(key), key))
	if err != nil {
		return "" // it changes at this moment
	}
	young := time.UnixMilli(sinceMS(since)).Add(p.cfg.RestoreWindow).Sub(p.r.cfg.Now())
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.mu.graves[string(key)]
	switch {
	case p.cfg.RestoreWindow > 0 && young > 0:
		return fmt.Sprintf("kept for %v more, for the case that an old copy of a data directory is put back", young.Round(time.Second))
	case !reapable(rec, p.r.cfg.Now().UnixMilli()):
		return "waits for its expiry to be past"
	case g == nil:
		return "waits to be looked at"
	case g.proven.IsZero():
		return fmt.Sprintf("waits for an exchange with owner %v", g.lacks)
	case time.Since(g.proven) < p.cfg.MessageAge:
		return fmt.Sprintf("all owners agree; waits for the age of messages, %v more", (p.cfg.MessageAge - time.Since(g.proven)).Round(time.Second))
	case !g.free.IsZero() && time.Since(g.free) < p.cfg.MessageAge:
		return fmt.Sprintf("all owners agree and no hint is kept; waits for the age of messages, %v more", (p.cfg.MessageAge - time.Since(g.free)).Round(time.Second))
	case g.free.IsZero() && p.mu.block != "":
		return "all owners agree; " + p.mu.block
	}
	return "all owners agree; is dropped next"
}

// Waiting is how many records without a value the Reaper waits for at present.
func (p *Reaper) Waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.graves)
}

// reap drops the record of a key if it is still in the state that was proven.
func (r *Replica) reap(key string, g grave) error {
	st := r.stripeOf(g.hash)
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return storage.ErrClosed
	}
	e, err := r.lookupLocked(st, []byte(key), 0, g.hash)
	if err != nil || !bare(e.rec) || e.rec.WholeHash() != g.state {
		return err
	}
	rec := e.rec
	if err := r.storeLocked(st, e, version.Record{}, nil, false, nil); err != nil {
		return err
	}
	r.reaped.add(e.slot, e.keyPos, rec.WholeHash())
	r.meters.reaped.Inc()
	return nil
}

// dropStray removes the grave of a key without a record: damage took that, and the
// grave was left behind when another node became the owner.
func (r *Replica) dropStray(key []byte, hash uint32) error {
	st := r.stripeOf(hash)
	st.mu.Lock()
	defer st.mu.Unlock()
	if r.closed.Load() {
		return storage.ErrClosed
	}
	e, err := r.lookupLocked(st, key, 0, hash)
	if errors.Is(err, version.ErrCorrupt) {
		return nil // it may come back
	}
	if err != nil || !e.rec.Absent() && !r.fenced(e.slot) {
		return err
	}
	op := storage.RowOp{Key: storage.AppendGraveKey(nil, e.slot, e.keyPos, e.key), Delete: true}
	_, err = r.store.Enqueue([]storage.RowOp{op}, false, nil)
	return err
}

// bare reports whether a record holds no payload.
func bare(rec version.Record) bool { return !rec.Absent() && !rec.HasLive() }

// reapable reports whether a record may be dropped once that is proven: it holds no
// payload, and nothing of it has time left.
func reapable(rec version.Record, nowMS int64) bool {
	if !bare(rec) {
		return false
	}
	for i := range rec.Versions {
		if !rec.Versions[i].Expired(nowMS) {
			return false // extended after the payload was dropped here
		}
	}
	return !rec.Counter.Live(nowMS)
}

// appendGraveOp appends what the index of graves needs when e's record becomes
// next.
func (r *Replica) appendGraveOp(ops []storage.RowOp, e *entry, next version.Record) []storage.RowOp {
	was, is := bare(e.rec), bare(next)
	if !was && !is {
		return ops
	}
	op := storage.RowOp{Key: storage.AppendGraveKey(nil, e.slot, e.keyPos, e.key), Delete: !is}
	if is {
		op.Value = binary.BigEndian.AppendUint64(nil, uint64(r.cfg.Now().UnixMilli()))
	}
	return append(ops, op)
}

// sinceMS reads the value of a grave: since when the row is as it is. One that
// cannot be read is as young as can be.
func sinceMS(value []byte) int64 {
	if len(value) != 8 {
		return math.MaxInt64
	}
	return int64(binary.BigEndian.Uint64(value))
}

// reapedKept bounds what is remembered of dropped records, twice.
const reapedKept = 1 << 16

// reaped remembers records that were dropped by proof. Other owners drop theirs
// about then, each by its own proof, and until they have they offer theirs here in
// every exchange: it would come and go for ever.
type reaped struct {
	mu struct {
		sync.Mutex
		fresh, older map[reapedKey]struct{}
	}
}

type reapedKey struct {
	slot  ring.Slot
	hash  uint32
	state uint64
}

// add remembers a dropped record.
func (d *reaped) add(slot ring.Slot, hash uint32, state uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.fresh) >= reapedKept || d.mu.fresh == nil {
		d.mu.fresh, d.mu.older = map[reapedKey]struct{}{}, d.mu.fresh
	}
	d.mu.fresh[reapedKey{slot, hash, state}] = struct{}{}
}

// has reports whether in is what was dropped of e's key.
func (d *reaped) has(e *entry, in version.Record) bool {
	if !bare(in) {
		return false
	}
	k := reapedKey{e.slot, e.keyPos, in.WholeHash()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.mu.fresh[k]; ok {
		return true
	}
	_, ok := d.mu.older[k]
	return ok
}
