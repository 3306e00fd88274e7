// Package share is the arithmetic of the admission controller (paper §6.5): how
// large a part of its time background work may be busy, judged by the latency
// that clients see.
//
// # Latencies
//
// Counts is a histogram of latencies with eight buckets to each doubling, so a
// percentile is right within 9 %. The caller counts what ended in each slice of
// time and hands that to Control.Next.
//
// # Target
//
// What a good latency is depends on the machine and on the load, so it is
// measured: the p99 of slices in which no background work ran, in blocks, of
// which the best one of the last three counts. The target is a multiple of that, and never
// below a floor under which nobody minds. While there is background work Control asks for
// a pause now and then, to look: at times that the clocks of all nodes name, since what
// other nodes do in the background harms clients as well.
//
// # Share
//
// The share shrinks by a quarter with every slice while the p99 of the last half
// second is above target, and grows by a hundredth when that and the p99 of the
// last ten seconds are below it: soon out of the way, slowly back. It begins at
// Floor whenever clients come to work or work comes to clients, and grows only by
// slices in which work ran, since the others do not show what it costs. It never
// falls below Floor, so that repair ends however busy the node is. Without clients
// the share is 1.
//
// Invariant: without clients share = 1, with clients Floor <= share <= Most.
package share
