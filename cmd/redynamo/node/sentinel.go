package node

import (
	"context"
	"fmt"
	"net"

	"github.com/redynamo/redynamo/resp"
)

// A sentinelDoor is the door for clients of Redis Sentinel, if there is one. It has
// pub/sub channels of its own: other nodes name other masters.
type sentinelDoor struct {
	listener net.Listener
	door     *resp.Server
}

func (d *sentinelDoor) listen(ctx context.Context, n *Node) error {
	if n.cfg.SentinelListen == "" {
		return nil
	}
	l, err := n.cfg.Network.Listen(ctx, n.cfg.SentinelListen)
	if err != nil {
		return fmt.Errorf("--sentinel-listen: %w", err)
	}
	if n.doorTLS != nil {
		l = n.doorTLS.listen(l)
	}
	d.listener = l
	return nil
}

func (d *sentinelDoor) build(n *Node, admin resp.RingAdmin, access *resp.Access) (err error) {
	if d.listener == nil {
		return nil
	}
	d.door, err = resp.New(resp.Config{
		Door: resp.Sentinel, Store: n.coord, Admin: n.publish, Ring: admin, SentinelName: n.cfg.SentinelName,
		Port: port(d.listener), TLS: n.doorTLS != nil, Access: access, Limits: resp.Limits{MaxClients: n.cfg.MaxClients},
		Now: n.cfg.Now, Rand: n.cfg.Rand, Logger: n.cfg.Logger, Metrics: n.set,
	})
	return err
}

func (d *sentinelDoor) start(s *supervisor) {
	if d.door != nil {
		s.start(task{"sentinel door", func(ctx context.Context) error { return d.door.Serve(ctx, d.listener) }})
		s.start(task{"sentinel", d.door.WatchMaster})
	}
}

func (d *sentinelDoor) shutdown(ctx context.Context) error {
	if d.door == nil {
		return nil
	}
	return quiet(d.door.Shutdown(ctx))
}

// abandon is for a node that did not start.
func (d *sentinelDoor) abandon() error {
	if d.listener == nil {
		return nil
	}
	return d.listener.Close()
}
