package epoch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/redynamo/redynamo/membership/ring"
)

// ErrCorrupt says that bytes are no state that a node could have.
var ErrCorrupt = errors.New("epoch: corrupt state")

// version begins every encoded state.
const version = 1

// maxZoneBytes bounds the zone of a record.
const maxZoneBytes = 64

const flagAdmitted = 1 // of a state

// Flags of a record.
const (
	flagRemoved = 1 << iota
	flagForgotten
	flagAbsent // of an older epoch: it has no record of this node
)

// explicit stands where an epoch's place among the live ones would, and is
// followed by its id.
const explicit = 0xff

// Append encodes a state, for the disk and for others alike.
func (s State) Append(dst []byte) []byte {
	start := len(dst)
	var flags byte
	if s.admitted {
		flags |= flagAdmitted
	}
	dst = append(dst, version, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.self))
	dst = appendRecords(dst, s.Target().records)
	dst = append(dst, byte(len(s.live)), byte(s.base))
	for k, e := range s.live[:len(s.live)-1] {
		dst = appendRecords(dst, difference(s.live[k+1], e))
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s.said)))
	for _, t := range s.said {
		dst = binary.BigEndian.AppendUint64(dst, uint64(t.ID))
		dst = binary.BigEndian.AppendUint64(dst, t.Version)
		for _, id := range []ID{t.Ack, t.Sync, t.Base, t.Read} {
			dst = s.appendID(dst, id)
		}
	}
	return append(dst, checksum(dst[start:])...)
}

func (s State) appendID(dst []byte, id ID) []byte {
	if i := s.place(id); i >= 0 {
		return append(dst, byte(i))
	}
	dst = append(dst, explicit)
	dst = binary.BigEndian.AppendUint64(dst, id.Sum)
	return binary.BigEndian.AppendUint64(dst, id.Digest)
}

// place is an epoch's index among the live ones, or -1.
func (s State) place(id ID) int {
	return slices.IndexFunc(s.live, func(e *Epoch) bool { return e.id == id })
}

// difference lists what records low has where high, the next one above it, has
// others. A record with counter zero stands for none.
func difference(high, low *Epoch) []ring.Record {
	var out []ring.Record
	for _, r := range high.records {
		old, found := low.Record(r.ID)
		switch {
		case !found:
			out = append(out, ring.Record{Member: ring.Member{ID: r.ID}})
		case old != r:
			out = append(out, old)
		}
	}
	return out
}

// without is difference the other way: the epoch below high.
func without(high *Epoch, diff []ring.Record) *Epoch {
	var out []ring.Record
	for _, r := range high.records {
		i := slices.IndexFunc(diff, func(d ring.Record) bool { return d.ID == r.ID })
		switch {
		case i < 0:
			out = append(out, r)
		case diff[i].Counter > 0:
			out = append(out, diff[i])
		}
	}
	return newEpoch(out)
}

func appendRecords(dst []byte, records []ring.Record) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(records)))
	for _, r := range records {
		dst = appendRecord(dst, r)
	}
	return dst
}

func appendRecord(dst []byte, r ring.Record) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.ID))
	if r.Counter == 0 {
		return append(dst, flagAbsent)
	}
	var flags byte
	if r.Removed {
		flags |= flagRemoved
	}
	if r.Forgotten {
		flags |= flagForgotten
	}
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.PlaceID))
	dst = binary.BigEndian.AppendUint16(dst, uint16(r.Weight))
	dst = append(dst, byte(len(r.Zone)))
	dst = append(dst, r.Zone...)
	dst = binary.BigEndian.AppendUint64(dst, r.Counter)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.TimeMS))
	return binary.BigEndian.AppendUint64(dst, uint64(r.Admin))
}

// Bytes is the stamp as it travels.
func (s Stamp) Bytes() (b [32]byte) {
	for i, n := range [...]uint64{s.Target.Sum, s.Target.Digest, s.Base.Sum, s.Base.Digest} {
		binary.BigEndian.PutUint64(b[8*i:], n)
	}
	return b
}

// StampOf is the inverse of Bytes.
func StampOf(b [32]byte) Stamp {
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[8*i:]) }
	return Stamp{Target: ID{at(0), at(1)}, Base: ID{at(2), at(3)}}
}

func checksum(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

// Decode reads what Append wrote, and refuses what no node could have.
func Decode(b []byte) (State, error) {
	if len(b) < 5 || b[0] != version {
		return State{}, fmt.Errorf("%w: no state of version %d", ErrCorrupt, version)
	}
	body, tail := b[:len(b)-4], b[len(b)-4:]
	if !bytes.Equal(checksum(body), tail) {
		return State{}, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	d := decoder{b: body[1:]}
	flags := d.byte()
	d.check(flags&^flagAdmitted == 0, "flags")
	s := State{admitted: flags&flagAdmitted != 0, self: ring.NodeID(d.uint64())}
	target := newEpoch(d.records(false))
	d.check(len(ring.Members(target.records)) <= ring.MaxMembers, "too many members")
	count, base := int(d.byte()), int(d.byte())
	d.check(count >= 1 && count <= MaxLive, "number of live epochs")
	d.check(base < count, "base")
	var diffs [][]ring.Record
	for k := 1; k < count && d.err == nil; k++ {
		diffs = append(diffs, d.records(true))
	}
	s.live, s.base = d.live(target, diffs), base
	if d.err == nil {
		s.said = d.trackers(s)
	}
	d.check(len(d.b) == 0, "bytes left over")
	if d.err != nil {
		return State{}, d.err
	}
	return s, nil
}

type decoder struct {
	b   []byte
	err error
}

func (d *decoder) check(ok bool, what string) {
	if !ok && d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrCorrupt, what)
	}
}

func (d *decoder) take(n int) []byte {
	d.check(len(d.b) >= n, "truncated")
	if d.err != nil {
		return make([]byte, n)
	}
	head := d.b[:n]
	d.b = d.b[n:]
	return head
}

func (d *decoder) byte() byte     { return d.take(1)[0] }
func (d *decoder) uint16() uint16 { return binary.BigEndian.Uint16(d.take(2)) }
func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

// live builds the epochs below the target, each from the one above it.
func (d *decoder) live(target *Epoch, diffs [][]ring.Record) []*Epoch {
	live := []*Epoch{target}
	for _, diff := range slices.Backward(diffs) {
		if d.err != nil {
			break
		}
		low := without(live[0], diff)
		d.check(len(diff) > 0 && low.under(live[0]), "live epochs do not ascend")
		d.check(slices.Equal(difference(live[0], low), diff), "differences that are none")
		live = slices.Insert(live, 0, low)
	}
	return live
}

// records reads records in order, one for each node, so that equal states are
// equal bytes.
func (d *decoder) records(absent bool) []ring.Record {
	n := int(d.uint16())
	d.check(n <= MaxRecords, "too many records")
	var all []ring.Record
	for last := ring.NodeID(0); len(all) < n && d.err == nil; {
		r := ring.Record{Member: ring.Member{ID: ring.NodeID(d.uint64())}}
		d.check(r.ID > last, "records out of order")
		last = r.ID
		flags := d.byte()
		if absent && flags == flagAbsent {
			all = append(all, r)
			continue
		}
		d.check(flags&^(flagRemoved|flagForgotten) == 0 && flags != flagForgotten, "record flags")
		r.Removed, r.Forgotten = flags&flagRemoved != 0, flags&flagForgotten != 0
		r.PlaceID, r.Weight = ring.NodeID(d.uint64()), int(d.uint16())
		zone := int(d.byte())
		d.check(zone <= maxZoneBytes, "zone too long")
		if d.err == nil {
			r.Zone = string(d.take(zone))
		}
		r.Counter, r.TimeMS, r.Admin = d.uint64(), int64(d.uint64()), ring.NodeID(d.uint64())
		d.check(r.Weight <= ring.MaxWeight, "weight")
		d.check(r.Counter >= 1 && r.Counter < MaxCounter, "counter")
		all = append(all, r)
	}
	return all
}

func (d *decoder) trackers(s State) []Tracker {
	n := int(d.uint16())
	d.check(n <= MaxRecords, "too many trackers")
	var all []Tracker
	for last := ring.NodeID(0); len(all) < n && d.err == nil; {
		t := Tracker{ID: ring.NodeID(d.uint64()), Version: d.uint64()}
		for _, id := range []*ID{&t.Ack, &t.Sync, &t.Base, &t.Read} {
			*id = d.id(s)
		}
		_, found := s.Target().Record(t.ID)
		d.check(found, "tracker of nobody")
		d.check(t.ID > last, "trackers out of order")
		d.check(t.Version > 0, "tracker version")
		last = t.ID
		all = append(all, t)
	}
	return all
}

func (d *decoder) id(s State) ID {
	i := d.byte()
	if i != explicit {
		d.check(int(i) < len(s.live), "place of an epoch")
		if d.err != nil {
			return ID{}
		}
		return s.live[i].id
	}
	id := ID{Sum: d.uint64(), Digest: d.uint64()}
	d.check(s.place(id) < 0, "a live epoch by its id")
	return id
}
