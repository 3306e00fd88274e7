package resp

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redynamo/redynamo/integration/bubble"
)

func TestHTTPIsLoggedOnceAMinute(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := &Server{cfg: Config{Logger: slog.New(slog.NewTextHandler(&out, nil))}, begun: time.Now()}
		for range 2 {
			for range 5 {
				s.logHTTP("10.0.0.7:1")
				time.Sleep(time.Second)
			}
			time.Sleep(httpLogEvery)
		}
		if n := strings.Count(out.String(), "security attack"); n != 2 {
			t.Errorf("%d lines in two minutes, want 2:\n%s", n, out.String())
		}
	})
}
