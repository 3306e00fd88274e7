package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/redynamo/redynamo/cmd/redynamo/node"
)

// serverFlags are the settings that every node has, whoever starts it.
type serverFlags struct {
	N             int           `help:"Replicas of a key, in a cluster that this node creates." default:"3"`
	R             int           `help:"Replicas that must answer a read." default:"2"`
	W             int           `help:"Replicas that must hold a write before it is acknowledged." default:"2"`
	Units         int           `help:"Partitions of a cluster that this node creates: ${enum}. Fixed for ever." enum:"1024,4096,16384" default:"1024"`
	Fsync         string        `help:"When a write counts as held: ${enum}. 'always' syncs every replica's disk first, 'one' only the coordinator's, 'interval' none." enum:"always,interval,one" default:"always"`
	FsyncInterval time.Duration `help:"How often '--fsync interval' syncs." default:"1s"`

	ExchangeInterval time.Duration `help:"Pause between two comparisons of what two owners hold." default:"10s"`
	RestoreWindow    time.Duration `help:"What is left of deleted keys is kept for so long, so that a copy of a data directory that is younger can be put back." default:"24h"`
	BackgroundTarget float64       `help:"The 99th percentile of what clients wait may be so many times what it is without background work, before that is held back; 0 never holds it back." default:"1.5"`
	ScrubPeriod      time.Duration `help:"Time in which every row is read and checked against its checksum." default:"24h"`

	RequestTimeout time.Duration `help:"Every request is answered within this time." default:"1s"`
	RequirePass    string        `name:"requirepass" help:"Password that clients must give." placeholder:"SECRET"`
	TLSCert        string        `name:"tls-cert" help:"Certificate, PEM: both doors speak TLS and nothing else. It is read again when it changes." placeholder:"FILE" type:"path"`
	TLSKey         string        `name:"tls-key" help:"Its private key, PEM." placeholder:"FILE" type:"path"`
	TLSClientCA    string        `name:"tls-client-ca" help:"Authorities, PEM: clients must show a certificate signed by one of them." placeholder:"FILE" type:"path"`
	ClusterSecret  string        `name:"cluster-secret-file" help:"File with the secret of the cluster, the same on all nodes: what nodes say to each other is encrypted, and who does not have it is kept out." placeholder:"FILE" type:"path"`
	KeyEvents      string        `name:"notify-keyspace-events" help:"What happens to keys is told on pub/sub channels: letters of Ag$lshzxeKEtmdn, as in Redis." placeholder:"LETTERS"`
	MaxClients     int           `help:"Client connections at most, on each door." default:"10000"`
	MaxValue       byteSize      `help:"Largest value." default:"1MiB"`
	RecordCache    byteSize      `help:"Memory for decoded records." default:"64MiB"`
	BlockCache     byteSize      `help:"Memory for blocks of the disk." default:"128MiB"`
	HintBudget     byteSize      `help:"Disk for the writes that one absent node missed; past it only those are kept that an acknowledgement rests on." default:"1GiB"`

	MinFree        freeSpace     `help:"Free space of the disk, in bytes or percent, below which writes are refused; 0 for none." default:"256MiB"`
	DiskStallLimit time.Duration `help:"A node whose disk stands still for longer ends, so that its supervisor can start it anew." default:"30s"`

	LogFormat string `help:"Shape of log lines: ${enum}." enum:"text,json" default:"text"`
}

// serverCmd runs one node until it is told to stop.
type serverCmd struct {
	serverFlags
	DataDir        string   `help:"Where everything persistent lies." required:"" type:"path"`
	Listen         string   `help:"Plain door: any Redis client, the whole key space." default:":6379"`
	ClusterListen  string   `help:"Cluster door: Redis Cluster clients, no extra hop." default:":6380"`
	PeerListen     string   `help:"Node to node." default:":7379"`
	SentinelListen string   `help:"Door for clients of Redis Sentinel: it names a plain door." placeholder:"HOST:PORT"`
	SentinelName   string   `help:"What these clients call the master." default:"mymaster"`
	GossipListen   string   `help:"Membership gossip, TCP and UDP." default:":7946"`
	ACLFile        string   `name:"aclfile" help:"Users and what they may do, as ACL SAVE writes them. It is this node's own: give each node one." placeholder:"FILE" type:"path"`
	ProtectedMode  bool     `help:"Refuse clients of other machines as long as the default user has no password." default:"true" negatable:""`
	DebugCommand   string   `name:"enable-debug-command" help:"Who may run DEBUG SLEEP, with which tests of clients hold up a connection: ${enum}." enum:"no,local,yes" default:"no"`
	AdminListen    string   `help:"HTTP: metrics, health, profiles; '-' for none." default:":8379"`
	Advertise      string   `help:"Host that clients and other nodes dial." placeholder:"HOST"`
	Join           []string `help:"Gossip addresses of the cluster to join." placeholder:"HOST:PORT"`
	AutoJoin       bool     `help:"Add this node to the ring on its first boot." default:"true" negatable:""`
	ReplaceLost    string   `help:"Take over this member, whose data directory is lost, with an empty one." placeholder:"NODEID"`
	AcceptLoss     bool     `help:"Give up what the data directory has lost: the node counts in reads at once. For one start."`
	Expect         int      `help:"On the first boot, answer LOADING to data commands until this many nodes have joined." placeholder:"N"`
	LogLevel       string   `help:"Least important message that is logged: ${enum}." enum:"debug,info,warn,error" default:"info"`
	Zone           string   `help:"Failure zone; replicas are spread over zones."`
	Weight         int      `help:"Share of the key space, relative to other nodes." default:"100"`
}

// Run starts the node and waits for ctx or for the node's own end.
func (s *serverCmd) Run(ctx context.Context, con *console) error {
	log, _, err := newLogger(con.err, s.LogLevel, s.LogFormat)
	if err != nil {
		return err
	}
	cfg, err := s.config()
	if err != nil {
		return err
	}
	if s.Weight == 0 {
		return errors.New("weight must not be 0")
	}
	if s.ReplaceLost != "" {
		if cfg.ReplaceLost, err = node.ParseNodeID(s.ReplaceLost); err != nil {
			return fmt.Errorf("replace-lost: %w", err)
		}
	}
	cfg.DataDir = s.DataDir
	cfg.Listen, cfg.ClusterListen, cfg.PeerListen = s.Listen, s.ClusterListen, s.PeerListen
	cfg.SentinelListen, cfg.SentinelName = s.SentinelListen, s.SentinelName
	cfg.GossipListen, cfg.AdminListen, cfg.Advertise = s.GossipListen, s.AdminListen, s.Advertise
	cfg.Join, cfg.StageJoin, cfg.Expect = s.Join, !s.AutoJoin, s.Expect
	cfg.AcceptLoss = s.AcceptLoss
	cfg.ACLFile, cfg.ProtectedMode, cfg.DebugCommand = s.ACLFile, s.ProtectedMode, s.DebugCommand
	cfg.Zone, cfg.Weight = s.Zone, s.Weight
	cfg.Logger = log
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	n, err := node.Start(ctx, cfg)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-n.Done():
	}
	return stop(log, n)
}

// stopWithin bounds a graceful stop; what is not finished by then is cut off,
// as a crash would, which loses nothing that was acknowledged. A node that has
// failed has little left to finish, and others wait for its connections to end.
// cutWithin bounds what cutting off may take: a disk that stands still never
// lets go of who waits for it.
const (
	stopWithin  = 15 * time.Second
	failedStops = 2 * time.Second
	cutWithin   = 2 * time.Second
)

func stop(log *slog.Logger, nodes ...*node.Node) error {
	log.Info("stopping")
	patience := stopWithin
	for _, n := range nodes {
		if n.Err() != nil {
			patience = failedStops
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	closed := make(chan error, 1)
	go func() {
		var first error
		for _, n := range nodes {
			if err := n.Close(ctx); err != nil && first == nil {
				first = err
			}
		}
		closed <- first
	}()
	var first error
	select {
	case first = <-closed:
	case <-time.After(patience + cutWithin):
		first = errors.New("cut off: the disk does not let go")
		for _, n := range nodes {
			first = errors.Join(n.Err(), first)
		}
	}
	if first == nil {
		log.Info("stopped")
	}
	return first
}

// config turns the shared flags into a node's Config.
func (f serverFlags) config() (node.Config, error) {
	if err := f.refuseZeros(); err != nil {
		return node.Config{}, err
	}
	fsync, err := node.ParseFsync(f.Fsync)
	if err != nil {
		return node.Config{}, err
	}
	secret, err := readSecret(f.ClusterSecret)
	if err != nil {
		return node.Config{}, err
	}
	return node.Config{
		Version: version,
		N:       f.N, R: f.R, W: f.W, Units: f.Units,
		Fsync: fsync, FsyncInterval: f.FsyncInterval, ExchangeInterval: f.ExchangeInterval, ScrubPeriod: f.ScrubPeriod, RestoreWindow: cmp.Or(f.RestoreWindow, -1),
		BackgroundTarget: cmp.Or(f.BackgroundTarget, -1),
		RequestTimeout:   f.RequestTimeout,
		RequirePass:      f.RequirePass,
		ClusterSecret:    secret,
		TLS:              node.DoorTLS{CertFile: f.TLSCert, KeyFile: f.TLSKey, ClientCAFile: f.TLSClientCA},
		KeyEvents:        f.KeyEvents,
		MaxClients:       f.MaxClients,
		MaxValue:         int(f.MaxValue),
		RecordCache:      int64(f.RecordCache),
		BlockCache:       int64(f.BlockCache),
		HintBudget:       int64(f.HintBudget),
		MinFree:          f.MinFree.bytes,
		MinFreePercent:   f.MinFree.percent,
		StallLimit:       f.DiskStallLimit,
	}, nil
}

// maxSecretFile bounds a file that may be anything.
const maxSecretFile = 4 << 10

// readSecret reads the secret of the cluster, without the space around it; none if no
// file is named.
func readSecret(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("cluster-secret-file: %w", err)
	}
	defer f.Close()
	secret, err := io.ReadAll(io.LimitReader(f, maxSecretFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("cluster-secret-file: %w", err)
	case len(secret) > maxSecretFile:
		return nil, fmt.Errorf("cluster-secret-file: %s is longer than %d bytes", file, maxSecretFile)
	}
	if secret = bytes.TrimSpace(secret); len(secret) == 0 {
		return nil, fmt.Errorf("cluster-secret-file: %s is empty", file)
	}
	return secret, nil
}

// refuseZeros reports every setting that was given as 0. To a Config that means
// the default, which is not what somebody means who writes it.
func (f serverFlags) refuseZeros() error {
	var errs []error
	for _, s := range []struct {
		name string
		zero bool
	}{
		{"n", f.N == 0}, {"r", f.R == 0}, {"w", f.W == 0},
		{"fsync-interval", f.FsyncInterval == 0}, {"exchange-interval", f.ExchangeInterval == 0}, {"scrub-period", f.ScrubPeriod == 0}, {"request-timeout", f.RequestTimeout == 0},
		{"max-clients", f.MaxClients == 0}, {"max-value", f.MaxValue == 0},
		{"disk-stall-limit", f.DiskStallLimit == 0}, {"record-cache", f.RecordCache == 0}, {"block-cache", f.BlockCache == 0}, {"hint-budget", f.HintBudget == 0},
	} {
		if s.zero {
			errs = append(errs, fmt.Errorf("%s must not be 0", s.name))
		}
	}
	return errors.Join(errs...)
}

// newLogger writes to w what is at least as important as level, which may be
// raised later.
func newLogger(w io.Writer, level, format string) (*slog.Logger, *slog.LevelVar, error) {
	l := new(slog.LevelVar)
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, fmt.Errorf("log-level: %w", err)
	}
	opts := &slog.HandlerOptions{Level: l}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), l, nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), l, nil
}
