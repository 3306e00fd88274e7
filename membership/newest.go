//go:build !previous

package membership

// MaxLevel is the highest level of a cluster that this program serves. From level 2
// on, a state says the level, a meta the weight, and nodes speak version 5 of their
// protocol.
const MaxLevel = 2
