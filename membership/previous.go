//go:build previous

package membership

// MaxLevel makes this program stand for the release before: it serves a level less.
// Upgrades and their rollback are tested with it.
const MaxLevel = 1
