package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"time"
)

// This file keeps strangers out of what nodes say to each other. All nodes of a cluster
// have one secret. Out of it everyone makes the same key pair, and a peer is whoever
// proves, in the handshake of TLS 1.3, that it has that pair too; no authority signs
// anything and nothing expires. Gossip is sealed by another key made of the secret.

// minSecretBytes is the length from which on a secret is taken for one.
const minSecretBytes = 16

// The keys that are made of the secret; they are part of the protocol.
const (
	peerKeyInfo   = "redynamo peer key 1"
	gossipKeyInfo = "redynamo gossip key 1"
)

// errSecret is a peer that has another secret, or none.
var errSecret = errors.New("the other side has another cluster secret, or none")

// derive makes a key of 32 bytes of the secret.
func derive(secret []byte, info string) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, info, 32)
}

// gossipKey is the key that seals gossip; nil without a secret.
func (c Config) gossipKey() ([]byte, error) {
	if len(c.ClusterSecret) == 0 {
		return nil, nil
	}
	return derive(c.ClusterSecret, gossipKeyInfo)
}

// sealed is a Network whose connections are TLS between those who have the secret.
type sealed struct {
	Network
	tls *tls.Config
}

// peerNetwork is the Network on which this node meets others.
func (c Config) peerNetwork() (Network, error) {
	if len(c.ClusterSecret) == 0 {
		return c.Network, nil
	}
	seed, err := derive(c.ClusterSecret, peerKeyInfo)
	if err != nil {
		return nil, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	der, err := selfSigned(key)
	if err != nil {
		return nil, err
	}
	return sealed{c.Network, &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // who the other is says its key, below
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 1 {
				if theirs, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey); ok && bytes.Equal(theirs, key.Public().(ed25519.PublicKey)) {
					return nil
				}
			}
			return errSecret
		},
	}}, nil
}

// selfSigned wraps a key as TLS wants it. Nothing in it is looked at but the key.
func selfSigned(key ed25519.PrivateKey) ([]byte, error) {
	whenever := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	return x509.CreateCertificate(rand.Reader, whenever, whenever, key.Public(), key)
}

// Dial connects and proves who both are.
func (s sealed) Dial(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := s.Network.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, s.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake says why
		return nil, fmt.Errorf("cluster secret: %w", err)
	}
	return abrupt{conn}, nil
}

// Listen leaves the handshake to the first read of a connection.
func (s sealed) Listen(ctx context.Context, addr string) (net.Listener, error) {
	l, err := s.Network.Listen(ctx, addr)
	if err != nil {
		return nil, err
	}
	return sealedListener{l, s.tls}, nil
}

type sealedListener struct {
	net.Listener
	tls *tls.Config
}

func (l sealedListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return abrupt{tls.Server(raw, l.tls)}, nil
}

// abrupt closes without a farewell, which a peer that does not read would hold up for
// seconds. Frames are whole or not there, so nobody misses it.
type abrupt struct{ *tls.Conn }

func (c abrupt) Close() error { return c.NetConn().Close() }
