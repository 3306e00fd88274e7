// Package node assembles one redynamo node from its rooms, starts them in
// order, supervises their long work and stops them in the reverse order.
//
// It is the only place where rooms meet: each room declares what it needs as a
// small interface, and the adapters here implement them with another room. No
// rule of the store lives here.
//
// Order of start: storage, replica, peer protocol, membership, coordinator,
// background tasks, doors. A stop drains the doors, then ends membership, which
// says goodbye, drains the coordinator, ends what requests stood on and closes
// storage last, so that nothing is acknowledged that is not on disk.
package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/redynamo/redynamo/antientropy"
	"github.com/redynamo/redynamo/coordinator"
	"github.com/redynamo/redynamo/coordinator/admission"
	"github.com/redynamo/redynamo/membership"
	"github.com/redynamo/redynamo/membership/epoch"
	"github.com/redynamo/redynamo/replica"
	"github.com/redynamo/redynamo/replica/cork"
	"github.com/redynamo/redynamo/replica/rpc"
	"github.com/redynamo/redynamo/replica/storage"
	"github.com/redynamo/redynamo/replica/version"
	"github.com/redynamo/redynamo/resp"
)

// Node is one running node.
type Node struct {
	cfg     Config
	set     *metrics.Set
	id      identity
	actor   version.Actor
	runID   string
	started time.Time

	store    *storage.Store
	recovery recovery
	replica  *replica.Replica
	disk     *workers
	local    *localPeer
	cork     cork.Cork
	pool     *rpc.Pool
	server   *rpc.Server
	members  *membership.Membership
	rings    ringBook
	hearing  hearing
	coord    *coordinator.Coordinator
	doors    []*resp.Server
	publish  *publisher
	herald   *herald
	upkeep

	fences
	sentinel  sentinelDoor
	listeners []net.Listener // plain, cluster, peer, admin
	base      *supervisor    // what requests stand on: peers, disk workers
	tasks     *supervisor    // what may end before them: membership, handoff, doors
	end       ending
}

// upkeep is what no client waits for: what brings copies together and clears up.
type upkeep struct {
	admission *admission.Controller
	back      *workers
	hints     hintMover
	drops     *dropper
	responder *antientropy.Responder
	exchange  *antientropy.Exchanger
	reaper    *replica.Reaper
	settling  settling
}

// fences are what keeps strangers out.
type fences struct {
	peerNet   Network  // sealed, if there is a secret
	gossipKey []byte   // nil without one
	doorTLS   *doorTLS // nil: the doors are open to all
}

// ending is how a node comes to its end.
type ending struct {
	failure atomic.Pointer[error] // why it cannot go on
	once    sync.Once             // closes done
	done    chan struct{}         // the node cannot go on, or is closed
	closing sync.Once             // sets closed
	closed  error                 // what the close came to
}

// ParseFsync reads the name of an fsync mode.
func ParseFsync(name string) (storage.Fsync, error) {
	for _, f := range []storage.Fsync{storage.FsyncAlways, storage.FsyncInterval, storage.FsyncOne} {
		if f.String() == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("fsync (%q) must be always, interval or one", name)
}

// Start builds a node and sets it going. It returns once the doors are open;
// until the node is Ready they answer LOADING to data commands. ctx bounds the
// start alone.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := &Node{
		cfg: cfg, set: metrics.NewSet(), started: cfg.Now(), end: ending{done: make(chan struct{})},
		base: newSupervisor(), tasks: newSupervisor(), disk: newWorkers(diskWorkers, diskQueue),
		hearing: newHearing(), upkeep: upkeep{back: newWorkers(backWorkers, backQueue)},
	}
	for n.actor == 0 {
		n.actor = version.Actor(cfg.Rand())
	}
	n.runID = fmt.Sprintf("%016x%016x%08x", cfg.Rand(), cfg.Rand(), uint32(cfg.Rand()))
	if err := n.build(ctx); err != nil {
		return nil, errors.Join(err, n.abandon())
	}
	n.run()
	n.announce()
	return n, nil
}

// announce logs where the doors are; with port 0 nobody else knows.
func (n *Node) announce() {
	args := []any{"version", n.cfg.Version, "node", n.id.node, "data_dir", n.cfg.DataDir}
	for i, name := range []string{"plain", "cluster", "peer", "admin"} {
		if i < len(n.listeners) {
			args = append(args, name, n.listeners[i].Addr().String())
		}
	}
	n.cfg.Logger.Info("listening", args...)
}

// build makes every part; it starts nothing but the commit loop, which the
// identity needs.
func (n *Node) build(ctx context.Context) error {
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"security", n.secure},
		{"listen", n.listen},
		{"storage", n.buildStorage},
		{"admission", n.buildAdmission},
		{"replica", n.buildReplica},
		{"peers", n.buildPeers},
		{"membership", n.buildMembership},
		{"membership", func(ctx context.Context) error { return n.members.CheckTwin(ctx) }},
		{"coordinator", n.buildCoordinator},
		{"antientropy", n.buildExchange},
		{"reaper", n.buildReaper},
		{"doors", n.buildDoors},
	}
	for _, s := range steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
	}
	return nil
}

func (n *Node) listen(ctx context.Context) error {
	for _, door := range []struct{ flag, addr string }{
		{"--listen", n.cfg.Listen}, {"--cluster-listen", n.cfg.ClusterListen},
		{"--peer-listen", n.cfg.PeerListen}, {"--admin-listen", n.cfg.AdminListen},
	} {
		if door.addr == "-" { // validate allows it for the admin HTTP alone
			continue
		}
		network := n.cfg.Network
		if door.flag == "--peer-listen" {
			network = n.peerNet
		}
		l, err := network.Listen(ctx, door.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", door.flag, err)
		}
		if n.doorTLS != nil && len(n.listeners) <= listenCluster {
			l = n.doorTLS.listen(l)
		}
		n.listeners = append(n.listeners, l)
	}
	return n.sentinel.listen(ctx, n)
}

// secure prepares what keeps strangers out, before anything listens.
func (n *Node) secure(context.Context) (err error) {
	if n.peerNet, err = n.cfg.peerNetwork(); err != nil {
		return err
	}
	if n.gossipKey, err = n.cfg.gossipKey(); err != nil || !n.cfg.TLS.on() {
		return err
	}
	n.doorTLS, err = newDoorTLS(n.cfg.TLS, n.cfg.Logger)
	return err
}

func (n *Node) buildStorage(context.Context) error {
	s, err := storage.Open(storage.Config{
		FS: n.cfg.FS, Dir: n.cfg.FS.PathJoin(n.cfg.DataDir, "store"),
		Fsync: n.cfg.Fsync, FsyncInterval: n.cfg.FsyncInterval,
		MemTableBytes: n.cfg.MemTableBytes, BlockCacheBytes: n.cfg.BlockCache,
		LogAge:       logAge(n.cfg.RestoreWindow),
		MinFreeBytes: n.cfg.MinFree, MinFreePercent: n.cfg.MinFreePercent, StallLimit: n.cfg.StallLimit,
		Fatal: func(err error) { n.fail(fmt.Errorf("storage: %w", err)) },
		Cork:  &n.cork, Logger: n.cfg.Logger, Metrics: n.set,
	})
	if errors.Is(err, syscall.EAGAIN) { // what the lock of a file says
		return fmt.Errorf("another process uses the data directory %s: %w", n.cfg.DataDir, err)
	}
	if err != nil {
		return err
	}
	n.store = s
	opened := s.Reached()
	s.Start()
	n.recovery.accept = n.cfg.AcceptLoss
	if n.id, err = boot(s, n.cfg.ReplaceLost, n.cfg.AcceptLoss, n.cfg.Rand); err != nil {
		return err
	}
	n.recovery.init(s, opened, n.id)
	n.set.NewGauge(`node_recovering`, func() float64 {
		if n.recovery.on() {
			return 1
		}
		return 0
	})
	return nil
}

// logAge is how far a damaged log may take a node back: like an old copy of its
// directory that is put back, so by no more than those may be old. The zero value is
// the default of both. Without a window nothing is promised, and it is short.
func logAge(window time.Duration) time.Duration {
	switch {
	case window == 0:
		return 0
	case window < 0:
		return time.Hour
	}
	return max(window/4, time.Second)
}

func (n *Node) buildReplica(context.Context) error {
	var err error
	n.replica, err = replica.New(replica.Config{
		Actor: n.actor, Store: n.store, Units: n.cfg.Units, CacheBytes: n.cfg.RecordCache, ScrubPeriod: n.cfg.ScrubPeriod,
		Pace:   n.pace(admission.Scrub),
		OnHint: func(nodeID) { n.hints.sender.Wake() }, OnExpired: n.expired,
		Now: n.cfg.Now, Logger: n.cfg.Logger, Metrics: n.set,
	})
	if err != nil {
		return err
	}
	n.drops = newDropper(n.replica, n.cfg.Units, func() *epoch.View { return n.members.View().Epoch }, func() { n.members.Nudge() }, n.cfg.Logger, n.set)
	n.drops.grace = dropGrace
	n.rings.opens = n.drops.reopen
	n.hints, err = newHintMover(n)
	n.local = &localPeer{replica: n.replica, disk: n.disk, budget: n.hints.budget, recovering: n.doubted, stale: n.stale, fatal: n.fail,
		why: func(key []byte) string { return n.reaper.Why(key) }}
	return err
}

func (n *Node) buildPeers(context.Context) error {
	clusterID := func() [16]byte { return n.members.View().ClusterID }
	var err error
	n.pool, err = rpc.NewPool(rpc.PoolConfig{
		Node: n.id.node, ClusterID: clusterID, Dial: n.peerNet.Dial,
		MaxFrameBytes: n.cfg.frameBytes(), MaxCallBytes: max(32<<20, n.cfg.frameBytes()),
		OnChange: n.peerChanged, OnStale: n.hearing.take, State: func() []byte { return n.members.State() }, Levels: n.levels, MessageAge: n.cfg.MessageAge,
		Cork: &n.cork, Rand: n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set,
	})
	if err != nil {
		return err
	}
	n.server, err = rpc.NewServer(rpc.ServerConfig{
		Node: n.id.node, ClusterID: clusterID, Handler: handler{n}, MessageAge: n.cfg.MessageAge,
		Stale: n.stale, EpochState: func() []byte { return n.members.EpochState() }, Levels: n.levels,
		MaxFrameBytes: n.cfg.frameBytes(), MaxCallBytes: max(256<<20, n.cfg.frameBytes()<<rpc.Background), MaxBacklogBytes: n.cfg.frameBytes(),
		Cork: &n.cork, Logger: n.cfg.Logger, Metrics: n.set,
	})
	return err
}

// peerChanged is told when a peer is suspected and when it is back.
func (n *Node) peerChanged(id nodeID, up bool) {
	n.publish.wake()
	if up {
		n.hints.sender.Returned(id)
		n.exchange.PeerUp(id)
	}
}

// durableRows reports whether a copy brought by another node counts only once it
// is synced.
func (n *Node) durableRows() bool { return n.cfg.Fsync != storage.FsyncOne }

func (n *Node) buildMembership(context.Context) error {
	expect := n.cfg.Expect
	if n.cfg.ReplaceLost != 0 {
		expect = 0 // a member of an existing cluster forms none
	}
	var err error
	n.members, err = membership.New(membership.Config{
		Boot:       membership.Boot{Number: n.id.boots, Incarnation: uint64(n.actor), Reached: n.recovery.opened},
		Recovering: n.id.recovering, Reached: n.recovery.reached, Restored: n.restored, Twin: n.twin,
		ID: n.id.node, Zone: n.cfg.Zone, Weight: n.cfg.Weight, Params: n.params(),
		Join: n.cfg.Join, Expect: expect, StageJoin: n.cfg.StageJoin, MaxLevel: n.cfg.MaxLevel,
		SecretKey: n.gossipKey,
		BindAddr:  n.cfg.GossipListen, Transport: n.cfg.GossipTransport, Endpoints: n.endpoints(),
		Store: metaStore{store: n.store, row: "membership"}, Admit: n.admit, Local: n.inTransition,
		Logger: n.cfg.Logger, Metrics: n.set, Now: n.cfg.Now, Rand: n.cfg.Rand, Fast: n.cfg.FastGossip,
	})
	return err
}

func (n *Node) buildCoordinator(context.Context) error {
	var err error
	n.coord, err = coordinator.New(coordinator.Config{
		R: n.cfg.R, W: n.cfg.W, ReadTimeout: n.cfg.RequestTimeout, WriteTimeout: n.cfg.RequestTimeout,
		MaxAge: n.cfg.MessageAge / 2, MessageAge: n.cfg.MessageAge,
		FsyncOne: n.cfg.Fsync == storage.FsyncOne, Recovering: n.doubted,
		Ended: func(took time.Duration) { n.admission.Ended(admission.Client, took) },
		Now:   n.cfg.Now, Rand: n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set,
	}, cluster{n}, n.local)
	n.publish = newPublisher(n)
	return err
}

func (n *Node) buildDoors(context.Context) error {
	admin := newRingAdmin(n, handover{n})
	n.herald = newHerald(n)
	access, err := newAccess(n.cfg)
	if err != nil {
		return err
	}
	for i, door := range []resp.Door{resp.Plain, resp.Cluster} {
		d, err := resp.New(resp.Config{
			Door: door, Store: n.coord, Admin: n.publish, Ring: admin, Hub: n.herald.hub, Port: port(n.listeners[i]), TLS: n.doorTLS != nil, Access: access,
			TokenKey: func() version.MACKey { return version.MACKey(n.members.View().TokenKey) },
			Limits:   resp.Limits{MaxClients: n.cfg.MaxClients, MaxValue: n.cfg.MaxValue},
			Cork:     &n.cork,
			Now:      n.cfg.Now, Rand: n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set, Params: n.settings(),
			Stop: n.stop,
		})
		if err != nil {
			return err
		}
		n.doors = append(n.doors, d)
	}
	return n.sentinel.build(n, admin, access)
}

// run sets all long work going.
func (n *Node) run() {
	n.base.start(task{"disk workers", n.disk.Run})
	n.base.start(task{"background workers", n.back.Run})
	n.base.start(task{"states of others", n.hearing.brought.Run})
	n.base.start(task{"messages of others", n.herald.heard.Run})
	n.base.start(task{"admission", n.admission.Run})
	n.base.start(task{"peers", n.pool.Run})
	n.base.start(task{"peer server", func(ctx context.Context) error { return n.server.Serve(ctx, n.listeners[listenPeer]) }})
	n.base.start(task{"replica", n.replica.Run})
	n.base.start(task{"handoff receiver", n.hints.receiver.Run})
	n.tasks.start(task{"handoff", n.hints.sender.Run})
	n.tasks.start(task{"ownership handoff", n.hints.mover.Run})
	n.tasks.start(task{"drop", n.drops.Run})
	n.tasks.start(task{"membership", n.members.Run})
	n.tasks.start(task{"epochs", n.hearTask})
	n.tasks.start(task{"publisher", n.publish.Run})
	n.tasks.start(task{"antientropy", n.exchange.Run})
	n.tasks.start(task{"reaper", n.reaper.Run})
	n.tasks.start(task{"mender", n.mendTask})
	n.tasks.start(task{"recovery", n.recoverTask})
	for i, d := range n.doors {
		n.tasks.start(task{"door", func(ctx context.Context) error { return d.Serve(ctx, n.listeners[i]) }})
	}
	n.sentinel.start(n.tasks)
	if len(n.listeners) > listenAdmin {
		n.tasks.start(task{"admin HTTP", newAdminHTTP(n.listeners[listenAdmin], n, n.set).Run})
	}
	for _, s := range []*supervisor{n.base, n.tasks} {
		n.watch(s)
	}
}

// indices into Node.listeners.
const (
	listenPlain = iota
	listenCluster
	listenPeer
	listenAdmin
)

// watch reports the failure of a supervisor's task as the node's.
func (n *Node) watch(s *supervisor) {
	context.AfterFunc(s.ctx, func() {
		if err := s.failed(); err != nil {
			n.fail(err)
		}
	})
}

// fail notes why the node cannot go on; its owner sees Done and closes it. It
// may be called from anywhere and does not wait.
func (n *Node) fail(err error) {
	if n.end.failure.CompareAndSwap(nil, &err) {
		n.cfg.Logger.Error("node cannot go on", "err", err)
	}
	n.end.once.Do(func() { close(n.end.done) })
}

// stop has the owner close a node that has not failed. It does not wait.
func (n *Node) stop() { n.end.once.Do(func() { close(n.end.done) }) }

// Done is closed when the node has failed, was asked to stop by a client, or was
// closed.
func (n *Node) Done() <-chan struct{} { return n.end.done }

// Err is why the node failed, or nil.
func (n *Node) Err() error {
	if p := n.end.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Close stops the node in order: no new clients, requests under way finish,
// peers are told, what is queued is committed. When ctx ends first, the rest is
// cut off. It answers the failure of a node that had one. A second call waits
// for the first and answers the same.
func (n *Node) Close(ctx context.Context) error {
	n.end.closing.Do(func() { n.end.closed = n.close(ctx) })
	return n.end.closed
}

func (n *Node) close(ctx context.Context) error {
	n.end.once.Do(func() { close(n.end.done) })
	var errs []error
	for _, d := range n.doors {
		errs = append(errs, quiet(d.Shutdown(ctx)))
	}
	errs = append(errs, n.sentinel.shutdown(ctx))
	n.tasks.stop()
	errs = append(errs, quiet(n.coord.Drain(ctx)))
	n.base.stop()
	errs = append(errs, n.replica.Close(), n.store.Close(), n.Err())
	return errors.Join(errs...)
}

// quiet drops the end of the caller's patience: being cut off is not a fault.
func quiet(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// abandon closes what build made before it failed. The replica may hold a
// snapshot, which the store would wait for, and holds the counters of the last
// clean close.
func (n *Node) abandon() error {
	errs := []error{n.sentinel.abandon()}
	for _, l := range n.listeners {
		errs = append(errs, l.Close())
	}
	if n.replica != nil {
		errs = append(errs, n.replica.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}
