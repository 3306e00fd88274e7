package version

import "cmp"

// Actor names one incarnation of a node: a random id drawn at every process
// start, never stored as a lease and never reused.
type Actor uint64

// Dot names one write: the Counter-th event of Actor in a partition. Counters
// start at 1, so the zero Dot names no write.
//
// Invariant: a dot is minted once. Two versions with the same dot are the same
// version and have the same value and HLC.
type Dot struct {
	Actor   Actor
	Counter uint64
}

// Compare orders dots by actor, then by counter. The order carries no meaning
// of time; it only makes lists canonical and ties deterministic.
func (d Dot) Compare(o Dot) int {
	if c := cmp.Compare(d.Actor, o.Actor); c != 0 {
		return c
	}
	return cmp.Compare(d.Counter, o.Counter)
}

// HLC is a hybrid logical clock reading: Unix milliseconds in the upper 48
// bits, a logical counter in the lower 16.
type HLC uint64

const (
	hlcLogicalBits = 16
	hlcMaxMS       = 1<<(64-hlcLogicalBits) - 1
	hlcMax         = ^HLC(0)
)

// HLCFromMS returns the first reading of a millisecond. Times before 1970 and
// past the range are clamped.
func HLCFromMS(ms int64) HLC {
	return HLC(min(max(ms, 0), hlcMaxMS)) << hlcLogicalBits
}

// UnixMS returns the physical part of the reading.
func (h HLC) UnixMS() int64 { return int64(h >> hlcLogicalBits) }

// Next returns the smallest reading above h. It saturates: the end of the range
// is eight thousand years away, and wrapping would turn the newest version into
// the oldest.
func (h HLC) Next() HLC {
	if h == hlcMax {
		return h
	}
	return h + 1
}
