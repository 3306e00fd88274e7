package node

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// DoorTLS has the doors speak TLS, and nothing else, if a certificate is named.
type DoorTLS struct {
	CertFile string // PEM: the certificate, and those between it and the authority
	KeyFile  string // PEM: its private key
	// ClientCAFile is a PEM of authorities: clients must show a certificate that one of
	// them has signed. None need to if it is empty.
	ClientCAFile string
}

func (t DoorTLS) on() bool { return t.CertFile != "" }

func (t DoorTLS) validate() error {
	switch {
	case (t.CertFile == "") != (t.KeyFile == ""):
		return errors.New("tls-cert and tls-key need each other")
	case t.ClientCAFile != "" && !t.on():
		return errors.New("tls-client-ca needs tls-cert and tls-key")
	}
	return nil
}

// doorTLS is what handshakes go by. The files are looked at again when somebody
// connects, at most every reloadEvery, so a certificate is renewed by writing the
// files anew; what cannot be used is logged, and what was used before stays. While
// one connection looks, which a disk may hold up, the others go by what there is.
type doorTLS struct {
	files  DoorTLS
	log    *slog.Logger
	config atomic.Pointer[tls.Config]

	look struct {
		sync.Mutex
		read [3]stamp // of the files when config was made of them
		at   time.Time
	}
}

// reloadEvery bounds how often the files are looked at.
const reloadEvery = time.Second

// stamp tells whether a file is another than before.
type stamp struct {
	modified time.Time
	size     int64
}

func newDoorTLS(files DoorTLS, log *slog.Logger) (*doorTLS, error) {
	d := &doorTLS{files: files, log: log}
	d.look.read, d.look.at = d.stamps(), time.Now()
	config, err := d.load()
	d.config.Store(config)
	return d, err
}

// listen wraps a listener.
func (d *doorTLS) listen(l net.Listener) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return d.current(), nil },
	})
}

// current is what the next handshake goes by.
func (d *doorTLS) current() *tls.Config {
	if d.look.TryLock() {
		defer d.look.Unlock()
		if now := time.Now(); now.Sub(d.look.at) >= reloadEvery {
			d.look.at = now
			d.reloadLocked()
		}
	}
	return d.config.Load()
}

// reloadLocked reads the files if they are others than before.
func (d *doorTLS) reloadLocked() {
	read := d.stamps()
	if read == d.look.read {
		return
	}
	d.look.read = read
	config, err := d.load()
	if err != nil {
		d.log.Error("TLS files were changed and cannot be used; the ones before still are", "err", err)
		return
	}
	d.config.Store(config)
	d.log.Info("TLS files were read again")
}

func (d *doorTLS) stamps() (all [3]stamp) {
	for i, name := range []string{d.files.CertFile, d.files.KeyFile, d.files.ClientCAFile} {
		if info, err := os.Stat(name); err == nil {
			all[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}

func (d *doorTLS) load() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(d.files.CertFile, d.files.KeyFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if d.files.ClientCAFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(d.files.ClientCAFile)
	if err != nil {
		return nil, err
	}
	config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
	if !config.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate in it", d.files.ClientCAFile)
	}
	return config, nil
}
