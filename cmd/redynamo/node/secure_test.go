package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// authority signs certificates for the loopback address.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	der  []byte
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, last: 1}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if a.der, err = x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	return a
}

// pool is what trusts it.
func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.der}))
	return p
}

// issue writes a certificate and its key, and answers the certificate's number.
func (a *authority) issue(certFile, keyFile string) int64 {
	a.t.Helper()
	a.last++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(a.last), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	pkcs, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(keyFile, "PRIVATE KEY", pkcs)
	a.write(certFile, "CERTIFICATE", der)
	return a.last
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// ping says PING over TLS and answers what came back, and the number of the
// certificate that the door showed.
func ping(n *Node, door int, cfg *tls.Config) (line string, serial int64, err error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", n.listeners[door].Addr().String(), cfg)
	if err != nil {
		return "", 0, err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", 0, err
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return "", 0, err
	}
	line, err = bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), c.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), err
}

// due has the next handshake look at the files.
func (d *doorTLS) due() {
	d.look.Lock()
	defer d.look.Unlock()
	d.look.at = time.Time{}
}

func TestTheDoorsSpeakTLSAndTakeUpNewCertificates(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	first := ca.issue(file("cert"), file("key"))
	cfg := lone(vfs.NewMem())
	cfg.TLS = DoorTLS{CertFile: file("cert"), KeyFile: file("key")}
	n := start(t, cfg)
	trust := &tls.Config{RootCAs: ca.pool()}
	for _, door := range []int{listenPlain, listenCluster} {
		if line, serial, err := ping(n, door, trust); line != "+PONG" || serial != first || err != nil {
			t.Fatalf("door %d answers %q, %d, %v", door, line, serial, err)
		}
	}
	if _, _, err := ping(n, listenPlain, &tls.Config{RootCAs: ca.pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	plain, err := net.Dial("tcp", n.listeners[listenPlain].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Write([]byte("PING\r\n")); err != nil {
		t.Fatal(err)
	}
	if said, _ := io.ReadAll(plain); strings.Contains(string(said), "PONG") {
		t.Errorf("without TLS the door answers %q", said)
	}

	if err := os.WriteFile(file("cert"), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.doorTLS.due()
	if line, serial, err := ping(n, listenPlain, trust); line != "+PONG" || serial != first || err != nil {
		t.Errorf("with a broken file the door answers %q, %d, %v", line, serial, err)
	}
	second := ca.issue(file("cert"), file("key"))
	n.doorTLS.due()
	if line, serial, err := ping(n, listenPlain, trust); line != "+PONG" || serial != second || err != nil {
		t.Errorf("with a new certificate the door answers %q, %d, %v", line, serial, err)
	}
}

func TestClientsShowACertificateIfTheyMust(t *testing.T) {
	dir, ca, other := t.TempDir(), newAuthority(t), newAuthority(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	ca.issue(file("cert"), file("key"))
	ca.issue(file("client"), file("clientkey"))
	other.issue(file("stranger"), file("strangerkey"))
	ca.write(file("ca"), "CERTIFICATE", ca.der)
	cfg := lone(vfs.NewMem())
	cfg.TLS = DoorTLS{CertFile: file("cert"), KeyFile: file("key"), ClientCAFile: file("ca")}
	n := start(t, cfg)
	for name, want := range map[string]string{"client": "+PONG", "stranger": "", "": ""} {
		trust := &tls.Config{RootCAs: ca.pool()}
		if name != "" {
			pair, err := tls.LoadX509KeyPair(file(name), file(name+"key"))
			if err != nil {
				t.Fatal(err)
			}
			trust.Certificates = []tls.Certificate{pair}
		}
		if line, _, err := ping(n, listenPlain, trust); line != want || (err == nil) != (want != "") {
			t.Errorf("with the certificate %q the door answers %q, %v", name, line, err)
		}
	}
}

func TestFilesThatAreNoCertificateEndTheStart(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	ca.issue(file("cert"), file("key"))
	for name, c := range map[string]struct {
		tls  DoorTLS
		want string
	}{
		"no file":      {DoorTLS{CertFile: file("nothing"), KeyFile: file("key")}, "no such file"},
		"no key":       {DoorTLS{CertFile: file("cert")}, "tls-cert and tls-key need each other"},
		"alone":        {DoorTLS{ClientCAFile: file("cert")}, "tls-client-ca needs tls-cert"},
		"no authority": {DoorTLS{CertFile: file("cert"), KeyFile: file("key"), ClientCAFile: file("key")}, "no certificate in it"},
	} {
		cfg := lone(vfs.NewMem())
		cfg.TLS = c.tls
		n, err := Start(t.Context(), cfg)
		if err == nil {
			_ = n.Close(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// heard is a log that several goroutines write.
type heard struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (h *heard) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.buf.Write(b)
}

// times counts a text in it.
func (h *heard) times(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.buf.String(), text)
}

// pair starts a node with one secret, and lets another with its own join it. log is what
// the first one logs.
func pair(t *testing.T, first, second string) (a, b *Node, log *heard) {
	t.Helper()
	log = &heard{}
	cfg := lone(vfs.NewMem())
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	cfg.ClusterSecret, cfg.Advertise = []byte(first), "127.0.0.1"
	a = start(t, cfg)
	var gossip string
	within(t, "hearing its own address", func() {
		for ; gossip == ""; time.Sleep(time.Millisecond) {
			self, _ := a.members.View().Node(a.id.node)
			gossip = self.Endpoints.GossipAddr()
		}
	})
	cfg = lone(vfs.NewMem())
	cfg.ClusterSecret, cfg.Advertise, cfg.Join = []byte(second), "127.0.0.1", []string{gossip}
	b, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(context.Background()) }) // it may never have been ready
	return a, b, log
}

const testSecret = "correct horse battery staple"

func TestNodesWithOneSecretAreACluster(t *testing.T) {
	a, b, _ := pair(t, testSecret, testSecret)
	within(t, "joining", func() {
		for len(a.members.View().Ring.Members()) < 2 || !b.members.View().Ready {
			time.Sleep(10 * time.Millisecond)
		}
	})
	for i, command := range []string{"SET k v", "GET k"} {
		if got := say(t, []*Node{a, b}[i], command); got[0] == '-' {
			t.Errorf("%s: %s", command, got)
		}
	}
}

func TestANodeWithAnotherSecretIsKeptOut(t *testing.T) {
	for _, second := range []string{"another secret altogether", ""} {
		a, b, log := pair(t, testSecret, second)
		within(t, "knocking at the door", func() {
			for log.times("failed to receive") < 3 { // one is enough to join
				time.Sleep(time.Millisecond)
			}
		})
		if n := len(a.members.View().Ring.Members()); n != 1 {
			t.Errorf("with the secret %q it is a member: there are %d", second, n)
		}
		if v := b.members.View(); v.Ready {
			t.Errorf("with the secret %q it is ready", second)
		}
		// What speaks for itself on the peer port gets no further than TLS.
		net, err := b.cfg.peerNetwork()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial(t.Context(), a.listeners[listenPeer].Addr().String())
		if err != nil {
			continue // refused at once
		}
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("redynrpc, let me in, and let this be longer than the first message of a handshake"))
		if said, _ := io.ReadAll(c); strings.Contains(string(said), "redynrpc") {
			t.Errorf("with the secret %q the peer port answers %q", second, said)
		}
		_ = c.Close() // all was said
	}
}
