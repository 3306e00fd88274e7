package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// clientTLS is how a command that dials a door meets one that speaks TLS.
type clientTLS struct {
	TLS     bool   `name:"tls" help:"The door speaks TLS."`
	TLSCA   string `name:"tls-ca" help:"Authorities that sign what servers show, PEM; those of the system if not given." placeholder:"FILE" type:"path"`
	TLSCert string `name:"tls-cert" help:"Certificate to show to servers that ask for one, PEM." placeholder:"FILE" type:"path"`
	TLSKey  string `name:"tls-key" help:"Its private key, PEM." placeholder:"FILE" type:"path"`
}

// config is nil without TLS.
func (c clientTLS) config() (*tls.Config, error) {
	switch {
	case !c.TLS && (c.TLSCA != "" || c.TLSCert != "" || c.TLSKey != ""):
		return nil, errors.New("tls-ca, tls-cert and tls-key need tls")
	case !c.TLS:
		return nil, nil
	case (c.TLSCert == "") != (c.TLSKey == ""):
		return nil, errors.New("tls-cert and tls-key need each other")
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCA != "" {
		pem, err := os.ReadFile(c.TLSCA)
		if err != nil {
			return nil, fmt.Errorf("tls-ca: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tls-ca: %s: no certificate in it", c.TLSCA)
		}
	}
	if c.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("tls-cert: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}
