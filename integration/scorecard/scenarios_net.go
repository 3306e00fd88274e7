//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"net"
	"time"
)

// flippedWire flips bits on the way to and from one node (row 21).
func flippedWire(b *bed) {
	b.onNamespaces(bedNodes)
	var wires []*flipper
	for from := range bedNodes {
		for to := range bedNodes {
			if from == to || from != 0 && to != 0 {
				continue
			}
			l, err := b.ns.listen()
			b.must(err)
			f := startFlipper(l, func(ctx context.Context) (net.Conn, error) { return b.ns.dial(ctx, b.ns.addrs(to)[2]) })
			b.finally(f.close)
			b.must(b.ns.reroute(from, to, l.Addr().String()))
			wires = append(wires, f)
		}
	}
	b.boot()
	b.begin((*client).both)
	b.faulty()
	for _, f := range wires {
		f.on.Store(true)
	}
	b.pause(b.span(5*time.Second, 5*time.Minute))
	flipped := int64(0)
	for _, f := range wires {
		f.on.Store(false)
		flipped += f.flipped.Load()
	}
	b.healed()
	refused := 0.0
	for _, p := range b.c.nodes {
		n, err := b.c.metric(b.ctx, p, "rpc_bad_frames_total")
		b.must(err)
		refused += n
	}
	b.note("%d bits flipped, %v frames refused", flipped, refused)
	b.check(flipped > 0, "no bit was flipped: the fault was none")
	b.check(refused > 0, "no frame was refused")
	b.settle()
}

// wrongClock sets the clock of one node wrong (row 25).
func wrongClock(b *bed) {
	binary, err := b.skewed.build(b.home)
	b.must(err)
	b.onLoopback(bedNodes)
	b.boot()
	victim := b.c.nodes[3]
	others := []*node{b.c.nodes[0], b.c.nodes[1], b.c.nodes[2], b.c.nodes[4]}
	log := newPlainLog()
	b.beginWith(func(cl *client, ctx context.Context) {
		switch cl.id % 3 {
		case 0:
			cl.change(ctx)
		case 1:
			log.alone(cl, ctx)
		default: // keys that live for ten minutes, by the clock of a node that is right
			cl.nodes, cl.words = others, []string{"EX", "600"}
			cl.at %= len(others)
			if cl.rng.IntN(5) == 0 {
				log.expiring(cl, ctx)
				return
			}
			cl.add(ctx)
		}
	}, b.clients(bedClients))
	b.faulty()
	for _, clock := range []string{"3600", "-3600", "30/1"} {
		victim.kill()
		victim.binary, victim.env = binary, []string{clockEnv + "=" + clock}
		b.returns(victim)
		b.pause(b.span(2*time.Second, time.Minute))
	}
	victim.kill()
	victim.binary, victim.env = "", nil
	b.returns(victim)
	b.healed()
	b.settle()
	b.pause(2 * briefLife) // those written last have their second too
	shown, of := log.stillThere(b, others)
	b.note("%d keys were given a second to live", of)
	b.check(shown == 0 && of > 0, "%d of %d keys are shown after their time, with the time of a node that is right", shown, of)
	lost, of := log.lostAlone(b)
	b.note("plain SET: %d of %d keys with one writer do not show what was acknowledged last", lost, of)
}

// plainLoss measures what plain SET loses where contexts lose nothing (row 26).
func plainLoss(b *bed) {
	b.onNamespaces(bedNodes)
	b.boot()
	calm, torn := newPlainLog(), newPlainLog()
	now := calm
	load := func(cl *client, ctx context.Context) {
		if cl.id%2 == 0 {
			cl.change(ctx)
			return
		}
		now.append(cl, ctx)
	}
	b.beginWith(load, b.clients(bedClients))
	b.pause(b.span(2*time.Second, 20*time.Second))
	b.l.stop()
	lost, of := calm.lostWords(b)
	b.note("plain GET and SET without a fault: %s of acknowledged adds lost (%d of %d)", percent(lost, of), lost, of)

	now = torn
	b.must(b.resetLists())
	left, right := b.clients(bedClients/2, b.c.nodes[:2]...), b.clients(bedClients/2, b.c.nodes[2:]...)
	b.beginWith(load, append(left, right...))
	b.faulty()
	b.must(b.ns.cut([]int{0, 1}, []int{2, 3, 4}))
	b.pause(b.span(4*time.Second, time.Minute))
	b.must(b.ns.heal())
	b.healed()
	b.settle()
	lost, of = torn.lostWords(b)
	b.note("plain GET and SET with halves partitioned: %s of acknowledged adds lost (%d of %d)", percent(lost, of), lost, of)
}

func percent(part, whole int) string {
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(max(1, whole)))
}

// resetLists empties the lists that plain clients append to.
func (b *bed) resetLists() error {
	cl := dialRedis(b.c, b.c.nodes[0].plain)
	defer cl.Close()
	for k := range bedClients * 2 {
		if err := cl.Del(b.ctx, fmt.Sprintf("list:%d", k)).Err(); err != nil {
			return err
		}
	}
	return nil
}

// badLink delays, loses, doubles and reorders what one node sends and is sent
// (row 10).
func badLink(b *bed) {
	b.onNamespaces(bedNodes)
	link, err := b.ns.slowLink(4)
	b.must(err)
	b.finally(link.close)
	b.boot()
	b.beginWith((*client).change, b.clients(bedClients, b.c.nodes[:4]...))
	b.pause(b.span(2*time.Second, 20*time.Second)) // a longer base for the ratio
	b.faulty()
	calm := b.stateChanges()
	link.bad.Store(true)
	b.pause(b.span(8*time.Second, 10*time.Minute))
	link.bad.Store(false)
	b.healed()
	changes := b.stateChanges()
	b.note("%d changes of membership, %d of reachability", changes["membership"]-calm["membership"], changes["reachability"]-calm["reachability"])
	b.check(changes["membership"] == calm["membership"], "a node that is there was declared down")
	b.settle()
	b.judgeLatency(3, math.Inf(1))
}
