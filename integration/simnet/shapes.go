package simnet

import "time"

// This file is what can be wrong with links: which are cut, in shapes that networks
// take when they break, and which are slow.

// Partition cuts every link between hosts of different groups. Hosts in no
// group keep all their links. Earlier cuts stay.
func (n *Network) Partition(groups ...[]string) {
	for i, a := range groups {
		for _, b := range groups[i+1:] {
			for _, x := range a {
				for _, y := range b {
					n.Cut(x, y)
					n.Cut(y, x)
				}
			}
		}
	}
}

// Cut stops everything from one host to another; the way back is not touched.
func (n *Network) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.cut[link{from, to}] = true
}

// Heal undoes every cut.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.mu.cut)
}

// Ring leaves a host the links to its nearest neighbours in the order given, on both
// sides, as many as make a majority with it, and cuts all others. Everybody sees a
// majority, and no two of five or more see the same one.
func (n *Network) Ring(hosts ...string) {
	reach := (len(hosts)/2 + 1) / 2
	for i, a := range hosts {
		for j, b := range hosts {
			if apart := max(i-j, j-i); min(apart, len(hosts)-apart) > reach {
				n.Cut(a, b)
			}
		}
	}
}

// Bridge cuts the hosts behind the first into two halves. The first joins them: it
// keeps all its links.
func (n *Network) Bridge(hosts ...string) {
	rest := hosts[1:]
	n.Partition(rest[:len(rest)/2], rest[len(rest)/2:])
}

// SlowLink adds a delay to everything from one host to another; zero undoes it.
func (n *Network) SlowLink(from, to string, extra time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if extra == 0 {
		delete(n.mu.slowLinks, link{from, to})
		return
	}
	n.mu.slowLinks[link{from, to}] = extra
}

// HealSlow undoes every slow host and link.
func (n *Network) HealSlow() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.mu.slow)
	clear(n.mu.slowLinks)
}

// Datagrams is what becomes of packets, in shares of all. Streams are not touched:
// a connection carries every byte once and in order.
type Datagrams struct {
	Loss  float64       // that never arrive
	Twice float64       // that arrive a second time, at any moment within Delay
	Late  float64       // that are held up within Delay, so that later ones overtake them
	Delay time.Duration // how late the late ones and the second copies are, at most
}

// SetDatagrams changes what becomes of packets from now on.
func (n *Network) SetDatagrams(d Datagrams) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.datagrams = d
}

// fateLocked draws after which times a packet arrives: not at all, once or twice.
func (n *Network) fateLocked(from, to string) (after []time.Duration) {
	d := n.mu.datagrams
	if n.mu.rnd.Float64() < d.Loss {
		return nil
	}
	extra := func(share float64) (time.Duration, bool) {
		if share == 0 || d.Delay <= 0 || n.mu.rnd.Float64() >= share {
			return 0, false
		}
		return time.Duration(n.mu.rnd.Int64N(int64(d.Delay))), true
	}
	late, is := extra(d.Late)
	if is {
		n.mu.stats.PacketsLate++
	}
	after = append(after, n.delayLocked(from, to)+late)
	if late, is := extra(d.Twice); is {
		n.mu.stats.PacketsTwice++
		after = append(after, n.delayLocked(from, to)+late)
	}
	return after
}
