// Package merkle keeps a digest of the keys of one partition, such that two
// replicas find where they differ by exchanging little when they differ little
// (Dynamo §4.7). It is a kernel: no clock, lock, input or output.
//
// # The tree
//
// A [Tree] has 16 to 1024 leaves, a power of two. A key belongs to the leaf
// given by the top bits of its 32-bit key hash. Rows are stored by slot, then
// key hash, so a leaf is one short range of rows in each slot of the partition.
//
// A leaf is the XOR of one 64-bit hash for each of its keys, made of slot, key
// hash and state hash. So a write changes a leaf without a look at its other
// keys: the old hash is taken out and the new one put in. A state hash of zero
// means "no record" and adds nothing. A node above the leaves is a hash of its
// two children, in order. An empty tree is zero throughout.
//
// Note: two keys of one slot with equal key hash and equal state hash would
// cancel. State hashes cover dots, which no two records of a partition share.
//
// # Finding differences
//
// Two trees of equal shape are compared from the root down, five levels at a
// time: of the nodes that differ, those five levels below are asked for next.
// With 1024 leaves that takes three questions: 1, 32 and 32 hashes for one
// differing key. [Diff] does it for two trees at hand; between nodes the
// asking side uses [Tree.Differing] and [Tree.Descend], the other answers with
// [Tree.Hashes].
//
// Replicas that count keys differently may have trees of different shape. The
// larger is brought to the shape of the smaller with [Tree.Shrunk]; a tree can
// only grow by being built anew from the rows.
//
// # Layout, on disk and between nodes
//
//	offset  size       field
//	0       1          version, 1
//	1       1          depth: log2 of the number of leaves, 4..10
//	2       8<<depth   leaves in order, big endian
//	end-4   4          CRC-32C of all before, big endian
//
// The nodes above the leaves are computed again when decoding.
//
// # Use
//
// A tree is not safe for concurrent use. Package antientropy owns the trees and
// keeps them current; package replica/rpc carries their hashes.
package merkle
