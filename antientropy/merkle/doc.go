// Package merkle keeps a digest of the keys of one partition, such that two
// replicas find where they differ by exchanging little when they differ little
// (Dynamo §4.7). It is a kernel: no clock, lock, input or output.
//
// # Cells
//
// The key space is cut into 2^20 cells: a [Cell] is one slot and the top six bits
// of the key hash. Rows are stored by slot, then key hash, so a cell is one short
// run of rows, and a partition is a run of cells. Neither depends on the number
// of keys or of partitions: what is kept for a cell stays good when the ring
// changes. A node with 100 million keys has about 100 of them in a cell; with
// fewer keys the cells are finer, which only makes less to compare.
//
// The digest of a cell is the XOR of one 64-bit hash for each of its keys, made of
// slot, key hash and state hash: see [Entry]. So a write changes it without a look
// at the other keys of the cell: the old hash is taken out and the new one put in.
// A state hash of zero means "no record" and adds nothing. Digests can therefore
// be kept as the XOR of changes, in any order: package storage does.
//
// Note: two keys of one slot with equal key hash and equal state hash would
// cancel. State hashes cover dots, which no two records of a partition share.
//
// # The tree
//
// The leaves of a [Tree] are the cells of a partition. A node above them is a hash
// of its two children, in order. An empty tree is zero throughout.
//
// Two trees of equal shape are compared from the root down, two levels at a time:
// of the nodes that differ, the four below are asked for next. Few levels at a time
// are more questions but fewer hashes, and it is hashes that a comparison of many
// differing keys consists of. [Diff] does it for two trees at hand; between nodes
// the asking side uses [Tree.Differing] and [Tree.Descend], the other answers with
// [Tree.Hashes].
//
// # Use
//
// A tree is made of the digests of one moment and never changes. Package storage
// keeps the digests, package antientropy folds and compares, package replica/rpc
// carries the hashes.
package merkle
