//go:build !previous

package membership

// MaxLevel is the highest level of a cluster that this program serves. From level 2
// on, a state says the level, a meta the weight, nodes speak version 5 of their
// protocol, and the commands whose rows say so are served (package resp).
const MaxLevel = 2
