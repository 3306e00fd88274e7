package node

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/VictoriaMetrics/metrics"
)

// Limits of the admin HTTP door. A profile takes as long as it is asked to,
// so writes have no deadline; everything a stranger can hold open has.
const (
	adminReadTimeout = 10 * time.Second
	adminIdleTimeout = 2 * time.Minute
	adminHeaderBytes = 16 << 10
)

// adminHTTP serves metrics, health and profiles of one node.
type adminHTTP struct {
	ln  net.Listener
	srv *http.Server
}

func newAdminHTTP(ln net.Listener, n *Node, set *metrics.Set) *adminHTTP {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		set.WritePrometheus(w)
		metrics.WriteProcessMetrics(w)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, n.Err(), nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, n.notReady(), n.impaired()) })
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		_ = enc.Encode(n.status()) // the reader has gone
	})
	// Without pprof.Cmdline: the command line may hold the clients' password.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &adminHTTP{ln: ln, srv: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: adminReadTimeout,
		ReadTimeout:       adminReadTimeout,
		IdleTimeout:       adminIdleTimeout,
		MaxHeaderBytes:    adminHeaderBytes,
	}}
}

// answer writes the error, or ok and what there is to say beside it.
func answer(w http.ResponseWriter, err error, but []impairment) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	text := "ok\n"
	for _, i := range but {
		text += i.text + "\n"
	}
	_, _ = w.Write([]byte(text)) // the reader has gone
}

// Run serves until ctx ends.
func (a *adminHTTP) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		_ = a.srv.Close() // cuts off profiles in progress; they have no state
	}()
	err := a.srv.Serve(a.ln)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}
