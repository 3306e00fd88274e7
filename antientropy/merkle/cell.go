package merkle

const (
	// CellsPerSlot is how many cells a slot is cut into.
	CellsPerSlot = 1 << cellBits
	// Cells is the number of cells in the key space.
	Cells = Slots * CellsPerSlot
	// Slots is the number of slots of the ring.
	Slots = 16384

	cellBits = 6
)

// Cell is a run of key hashes in one slot: the slot over the top six bits of the
// hashes. The order of cells is the order of the rows in them.
type Cell uint32

// CellOf is the cell of a key.
func CellOf(slot uint16, keyHash uint32) Cell {
	return Cell(slot)<<cellBits | Cell(keyHash>>(32-cellBits))
}

// Slot is the slot of the cell.
func (c Cell) Slot() uint16 { return uint16(c >> cellBits) }

// Index is the number of the cell in its slot.
func (c Cell) Index() int { return int(c) & (CellsPerSlot - 1) }

// Hashes gives the least and the greatest key hash of the cell.
func (c Cell) Hashes() (lo, hi uint32) {
	lo = uint32(c) << (32 - cellBits)
	return lo, lo | (1<<(32-cellBits) - 1)
}

// Entry is what one key adds to the digest of its cell. A key without a record
// has state 0 and adds 0.
func Entry(slot uint16, keyHash uint32, state uint64) uint64 {
	if state == 0 {
		return 0
	}
	key := uint64(slot)<<32 | uint64(keyHash)
	return mix64(state ^ mix64(key+0x9E3779B97F4A7C15))
}

// Change is what a key adds to the digest of its cell when it goes from one state
// to another.
func Change(slot uint16, keyHash uint32, old, new uint64) uint64 {
	return Entry(slot, keyHash, old) ^ Entry(slot, keyHash, new)
}
