package integration

import (
	"testing"
	"time"
)

// TestCopiesForARingThatNodesHaveNotHeardOfAreTakenInVirtualTime withholds gossip from two
// of the three nodes that are to own everything, so that keys which three of the others
// own have one owner in the new ring that knows of it. Clients keep to nodes that do.
func TestCopiesForARingThatNodesHaveNotHeardOfAreTakenInVirtualTime(t *testing.T) {
	t.Parallel()
	changeRing(t, 15, 6, 0, func(s *ringSim) {
		mute := func(on bool) {
			for _, i := range []int{1, 2} {
				s.net.Mute(s.nodes[i].host, on)
				s.doors.set(i, !on)
			}
		}
		mute(true)
		time.Sleep(time.Second) // clients have left them
		s.apply(0, "REMOVE", s.addr(3), s.addr(4), s.addr(5))
		time.Sleep(8 * time.Second)
		mute(false)
		s.awaitRing(ringChange, first(3)...)
		for _, i := range []int{3, 4, 5} {
			s.awaitLeft(i)
			s.leaves(i)
		}
	})
}
