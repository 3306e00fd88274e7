package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthSucceedsOnlyIfTheNodeIsReady(t *testing.T) {
	code, text := http.StatusOK, "ok\n"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text) // the client will miss it
	}))
	defer s.Close()
	ask := func() (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), []string{"health", s.URL + "/readyz"}, &out, io.Discard)
		return out.String(), err
	}
	if out, err := ask(); err != nil || out != "ready\n" {
		t.Errorf("of a ready node: %q, %v", out, err)
	}
	code, text = http.StatusServiceUnavailable, "loading: 1 of 3 expected members have joined\n"
	if out, err := ask(); err == nil || out != "" || !strings.Contains(err.Error(), "1 of 3") {
		t.Errorf("of a loading node: %q, %v; want the reason", out, err)
	}
	s.Close()
	if out, err := ask(); err == nil || out != "" {
		t.Errorf("of a dead node: %q, %v", out, err)
	}
}
