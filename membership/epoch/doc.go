// Package epoch takes a cluster from one ring to the next without losing a read
// or a write.
package epoch
