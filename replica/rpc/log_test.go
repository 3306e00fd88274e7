package rpc

import (
	"bytes"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestRefusedConnectionsCannotFillTheLog(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &Server{cfg: ServerConfig{Logger: slog.New(slog.NewTextHandler(&out, nil))}}
		for range 5 {
			s.logRefused(&net.TCPAddr{}, ErrMalformed)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("%d lines for 5 connections, want 1:\n%s", n, out.String())
		}
		time.Sleep(refusedLogEvery)
		s.logRefused(&net.TCPAddr{}, ErrMalformed)
		if n := strings.Count(out.String(), "\n"); n != 2 || !strings.Contains(out.String(), "more_since_last=4") {
			t.Errorf("%d lines, want 2 and the 4 silent ones counted:\n%s", n, out.String())
		}
	})
}
