package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// healthCmd asks a node's admin HTTP whether it is ready, for container
// health checks in images that have no other program.
type healthCmd struct {
	URL     string        `arg:"" optional:"" help:"What to ask." default:"http://127.0.0.1:8379/readyz"`
	Timeout time.Duration `help:"How long to wait for the answer." default:"2s"`
}

// healthAnswerBytes bounds what is read of a refusal.
const healthAnswerBytes = 4 << 10

// Run succeeds if the answer is 200.
func (h *healthCmd) Run(ctx context.Context, con *console) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, healthAnswerBytes))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	_, but, _ := strings.Cut(strings.TrimSpace(string(text)), "\n") // what a ready node cannot do
	fmt.Fprintln(con.out, strings.TrimSpace("ready\n"+but))
	return nil
}
